"""FGSM and its L2 form, the fast gradient method (Goodfellow, Shlens and Szegedy, 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.common.losses import Average, ClassGoal, Criterion, Loss, check_loss
from attacks.common.norms import climb
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@register(
    "fgsm",
    "one gradient step, one gradient for all budgets",
    paper="Goodfellow et al. 2015",
    norms=("linf", "l2", "l1"),
)
@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step of full size along the gradient: ``clamp(x + eps sign(g), 0, 1)`` in Linf, ``g / |g|`` in L2, and in L1
    shared by the values of the largest gradients.

    All budgets share one gradient, so a sweep costs one forward and one backward pass per image (and draw).

    Attributes:
        loss: ``ce`` is the paper's; ``margin`` and ``auto`` do not go blind where cross-entropy saturates.
        average: over the draws of a random target.
        goal: any wrong class, or one to reach.
    """

    iterated: ClassVar[bool] = False

    loss: Loss = "ce"
    average: Average = "loss"
    goal: ClassGoal = "untargeted"

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:
        check_loss(self.loss, target, images, aimed=self.goal != "untargeted")

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        criterion = Criterion.of(self.goal, target, images, labels)
        _, gradient, _ = target.gradient(images, criterion.objective(self.loss, self.average))
        return torch.stack([climb(images, gradient, budget, self.norm).clamp(0, 1) for budget in budgets])
