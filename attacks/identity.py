"""The identity attack: the control that shows whether the protocol itself changes accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@register(
    "identity",
    "leaves images as they are: the null control",
    access="none",
    aims_at="nothing",
    norms=("linf", "l2", "l1", "l0"),
)
@dataclass(frozen=True, kw_only=True)
class Identity(Attack):
    """Returns the clean images for every budget and spends no pass."""

    iterated: ClassVar[bool] = False

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        return images.repeat(len(budgets), 1, 1, 1, 1)
