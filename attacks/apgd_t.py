"""Targeted Auto-PGD (Croce and Hein, 2020): one run towards each of the likeliest wrong classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.apgd import ascend
from attacks.common.losses import Average, Loss, check_loss
from attacks.common.search import Run, Search, Stepwise, at_least
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@register(
    "apgd-t", "Auto-PGD towards the likeliest wrong classes", paper="Croce and Hein 2020", norms=("linf", "l2", "l1")
)
@dataclass(frozen=True, kw_only=True)
class APGDT(Stepwise):
    """Auto-PGD on the targeted DLR loss; success is any wrong class (or the goal's).

    Costs up to ``classes x restarts x steps`` gradients per image and budget; decided images leave.

    Attributes:
        steps: per run.
        restarts: runs per class.
        classes: how many of the classes that the clean image is likeliest mistaken for are aimed at.
        loss: towards the class; ``dlr`` needs four classes or more.
        average: over the draws of a random target.
        rho: as in :class:`attacks.apgd.APGD`.
    """

    steps: int = 100
    restarts: int = 1
    classes: int = 9
    loss: Loss = "dlr"
    average: Average = "loss"
    rho: float = 0.75

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), restarts=(self.restarts, 1), classes=(self.classes, 1), rho=(self.rho, 0))

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        check_loss(self.loss, target, images, aimed=True)

    def attack(self, search: Search, budget: float) -> None:
        scores = search.logits.scatter(1, search.criterion.labels[:, None], -torch.inf)
        ranked = scores.argsort(stable=True, dim=1, descending=True)[:, :-1]
        for number in range(min(self.classes, ranked.shape[1])):
            for restart in range(self.restarts):
                part = search.left(ranked[:, number])
                if not len(part.rows):
                    return
                start = number * self.restarts + restart
                ascend(Run(search, part), budget, self.norm, self.steps, self.loss, self.average, self.rho, start)
