"""Attacks: one attack, one file; listing them imports nothing heavy.

``make("pgd:steps=40,restarts=5", norm="l2")`` builds one.
"""

from typing import TYPE_CHECKING, Any

from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from robustbench_aig.contracts.attack import Attack

__all__ = ["make", "registry"]

registry: "Registry[Attack]" = Registry(
    "attack",
    "attacks",
    "robustbench_aig.attacks",
    "robustbench_aig.contracts.attack:Attack",
    norms=("linf", "l2"),
    access="white-box",
    budget="fixed",
    aims_at="class",
    paper="",
)


def make(specification: str, **defaults: Any) -> "Attack":
    """Build an attack from ``name`` or ``name:key=value,key=value``; the name may be ``FILE.py:Class``.

    Args:
        specification: what to build.
        defaults: parameters set unless the specification sets them, such as ``norm``; what an attack lacks is left out.

    Raises:
        UsageError: an unknown name or parameter, a bad value, or a norm that the attack does not work in.
        Prerequisite: there is no such file.
        UserError: somebody else's class cannot be loaded or used.
    """
    made = registry.make(specification, **defaults)
    made.check_norm()
    return made
