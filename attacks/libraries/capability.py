"""What is known of a library's attack before the library is imported, and how a request for one is read."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from robustbench_aig.errors import UsageError, unknown
from robustbench_aig.registry import no_parameter

LINF, L2, L1, L0 = ("linf",), ("l2",), ("l1",), ("l0",)
ANY = ("l2", "linf", "l1", "l0")

Need = Literal["classes", "goal", "start", "feed", "logits above 0", "log probabilities"]
"""What an attack must be given: the number of classes, a class to reach, a misclassified start, other images, or logits
of a certain kind, which say the same."""


@dataclass(frozen=True)
class Capability:
    """One attack of a library.

    Attributes:
        summary: what it does, in a few words.
        norms: that it can work in, its own first.
        budget: ``fixed`` attacks aim at a budget; ``minimal`` ones look for the smallest perturbation, once.
        access: what it uses of the model: ``white-box`` gradients, ``black-box`` outputs, or ``none``.
        iterated: whether it takes more than one step.
        epsilon: the parameter that takes the budget.
        steps: parameters whose default follows the budget: default value x budget / default budget.
        filled: parameters that get another default here than in the library.
        needs: what the adapter prepares for it.
        control: it is meant to leave images as they are.
        clean_on_failure: the library returns the clean image where it does not break an image.
        channels: the only number of image channels that it takes.
        classes: the fewest classes that it can tell apart.
        note: what a user should know.
        missing: why it cannot run; empty if it can.
    """

    summary: str
    norms: tuple[str, ...]
    budget: Literal["fixed", "minimal"] = "fixed"
    access: Literal["white-box", "black-box", "none"] = "white-box"
    iterated: bool = True
    epsilon: str = "eps"
    steps: tuple[str, ...] = ()
    filled: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    control: bool = False
    clean_on_failure: bool = False
    channels: int | None = None
    classes: int = 2
    note: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Request:
    """A library attack as asked for.

    Attributes:
        library: prefix of the name.
        entry: the name within the library.
        capability: its row in the table.
        norm: of the budgets.
        parameters: every one, with defaults filled in.
        given: those that were asked for.
    """

    library: str
    entry: str
    capability: Capability = field(compare=False)
    norm: str
    parameters: tuple[tuple[str, Any], ...]
    given: tuple[tuple[str, Any], ...] = field(compare=False)

    @property
    def name(self) -> str:
        """As in ``foolbox:DDNAttack``."""
        return f"{self.library}:{self.entry}"


def runnable(table: Mapping[str, Capability]) -> dict[str, str]:
    """Summaries of the attacks that can run, by name."""
    return {name: capability.summary for name, capability in table.items() if not capability.missing}


def request(
    library: str,
    table: Mapping[str, Capability],
    entry: str,
    module: ModuleType,
    managed: Collection[str],
    norm: str | None,
    goal: str,
    given: Mapping[str, Any],
) -> Request:
    """Check what a user asked for.

    Args:
        library: prefix of the name.
        table: its attacks.
        entry: the name within the library.
        module: that holds the classes.
        managed: constructor parameters that the adapter sets.
        norm: of the budgets; None for the attack's own.
        goal: only ``untargeted`` will do.
        given: other parameters.

    Raises:
        UsageError: unknown name or parameter, a wrong value, norm or goal, or an attack that cannot run.
    """
    if entry not in table:
        raise unknown(f"{library} attack", entry, runnable(table))
    name, capability = f"{library}:{entry}", table[entry]
    if capability.missing:
        raise UsageError(f"attack '{name}' cannot run here: {capability.missing}.")
    if goal != "untargeted":
        raise UsageError(f"attack '{name}' is untargeted here; use one of the suite's own attacks for goal={goal}.")
    if norm is not None and norm not in capability.norms:
        valid = " or ".join(capability.norms)
        raise UsageError(f"attack '{name}' works in {valid}, not {norm}; choose that norm, and budgets in it.")
    defaults = settable(getattr(module, entry), capability, managed)
    for key, value in given.items():
        if key not in defaults:
            raise no_parameter("attack", name, key, defaults)
        if not _fits(value, defaults[key]):
            default = defaults[key]
            raise UsageError(f"attack '{name}', parameter '{key}' cannot be '{value}'; its default is {default!r}.")
    filled = defaults | dict(given)
    return Request(library, entry, capability, norm or capability.norms[0], tuple(filled.items()), tuple(given.items()))


def settable(cls: Any, capability: Capability, managed: Collection[str]) -> dict[str, Any]:
    """The parameters that a user may set, with their defaults; a step that follows the budget defaults to None."""
    parameters = inspect.signature(cls).parameters
    own = [name for name in parameters if name not in managed and name not in (capability.epsilon, "kwargs")]
    defaults = {name: None if name in capability.steps else parameters[name].default for name in own}
    return defaults | dict(capability.filled)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of its default's kind; a number will do where the default is None or a range."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    if default is None and value is None:
        return True
    return isinstance(value, int) or (isinstance(value, float) and not isinstance(default, int))
