"""Input-transformation defences: one defence, one file; listing them imports nothing heavy.

``make("jpeg:75")`` builds one, ``make("jpeg:75+bitdepth:5")`` applies them in that order.
"""

from typing import TYPE_CHECKING

from robustbench_aig.errors import UsageError
from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from robustbench_aig.contracts.defense import Defense

__all__ = ["make", "registry"]

registry: "Registry[Defense]" = Registry("defense", "robustbench_aig.defenses")
registry.add("none", "defenses.none:NoDefense", "the images as they are", random=False)
registry.add("jpeg", "defenses.jpeg:Jpeg", "JPEG round trip, 4:2:0 (Guo et al. 2018)", random=False)
registry.add("bitdepth", "defenses.bitdepth:BitDepth", "fewer levels per channel (Xu et al. 2018)", random=False)
registry.add("median", "defenses.median:Median", "3x3 median filter (Xu et al. 2018)", random=False)
registry.add("resize-pad", "defenses.resize_pad:ResizePad", "random resize and pad (Xie et al. 2018)", random=True)
registry.add("smoothing", "defenses.smoothing:Smoothing", "Gaussian noise, certified radii (Cohen 2019)", random=True)


def make(specification: str) -> "Defense":
    """Build a defence from ``name``, ``name:value``, ``name:key=value,...`` or several of these joined by ``+``.

    Members of a composition that do nothing (``none``) are left out, so ``none+jpeg:75`` is ``jpeg:75``.

    Raises:
        UsageError: an unknown name or parameter, a bad value, or an empty member such as in ``jpeg:75+``.
    """
    parts = [part.strip() for part in specification.split("+")]
    if not all(parts):
        raise UsageError(f"defense '{specification}' has an empty member; write it like jpeg:75+bitdepth:5.")
    members = [member for member in map(registry.make, parts) if member.key != "none"]
    if not members:
        return registry.make("none")
    if len(members) == 1:
        return members[0]
    from defenses.composed import Composed

    return Composed(tuple(members))
