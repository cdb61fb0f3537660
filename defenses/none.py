"""No defence."""

from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.registry import register


@register("none", "the images as they are")
def none() -> Defense:
    """The defence that does nothing."""
    return NO_DEFENSE
