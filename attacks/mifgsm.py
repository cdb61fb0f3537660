"""MI-FGSM (Dong et al., 2018): BIM on an accumulated, L1-normalised gradient."""

from dataclasses import dataclass
from typing import ClassVar

from attacks.bim import BIM


@dataclass(frozen=True, kw_only=True)
class MIFGSM(BIM):
    """BIM with momentum 1."""

    name: ClassVar[str] = "mifgsm"

    momentum: float = 1.0
