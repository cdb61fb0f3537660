"""Input-transformation defences: one defence, one file; listing them imports nothing heavy.

``make("jpeg:75")`` builds one, ``make("jpeg:75+bitdepth:5")`` applies them in that order.
"""

from typing import TYPE_CHECKING

from robustbench_aig.errors import UsageError
from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from robustbench_aig.contracts.defense import Defense

__all__ = ["make", "registry"]

registry: "Registry[Defense]" = Registry(
    "defense",
    "defenses",
    "robustbench_aig.defenses",
    "robustbench_aig.contracts.defense:Defense",
    deterministic=True,
    paper="",
)


def make(specification: str) -> "Defense":
    """Build a defence from ``name``, ``name:value``, ``name:key=value,...`` or several of these joined by ``+``; a name
    may be ``FILE.py:Class``.

    Members of a composition that do nothing (``none``) are left out, so ``none+jpeg:75`` is ``jpeg:75``.

    Raises:
        UsageError: an unknown name or parameter, a bad value, or an empty member such as in ``jpeg:75+``.
        Prerequisite: there is no such file.
        UserError: somebody else's class cannot be loaded or used.
    """
    parts = [part.strip() for part in specification.split("+")]
    if not all(parts):
        raise UsageError(f"defense '{specification}' has an empty member; write it like jpeg:75+bitdepth:5.")
    members = [member for member in map(registry.make, parts) if not member.nothing]
    if not members:
        return registry.make("none")
    if len(members) == 1:
        return members[0]
    from defenses.composed import Composed

    return Composed(tuple(members))
