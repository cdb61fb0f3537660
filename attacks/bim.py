"""The basic iterative method (Kurakin, Goodfellow and Bengio, 2017): PGD from the clean image."""

from dataclasses import dataclass

from attacks.pgd import PGD
from robustbench_aig.registry import register


@register("bim", "iterated FGSM from the clean image", paper="Kurakin et al. 2017", norms=("linf", "l2", "l1"))
@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """PGD from the clean image, in 10 steps of a quarter of the budget unless said otherwise."""

    steps: int = 10
    rel_step: float = 0.25
    random_start: bool = False
