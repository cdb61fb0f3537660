"""MI-FGSM (Dong et al., 2018): BIM on an accumulated, L1-normalised gradient."""

from dataclasses import dataclass

from attacks.bim import BIM
from robustbench_aig.registry import register


@register("mifgsm", "iterated FGSM with momentum", paper="Dong et al. 2018", norms=("linf", "l2", "l1"))
@dataclass(frozen=True, kw_only=True)
class MIFGSM(BIM):
    """BIM with momentum 1."""

    momentum: float = 1.0
