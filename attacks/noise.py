"""Random noise of full size: the weakest attack there is, and so a check on the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.common.norms import random_direction, uniform
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@register("noise", "random directions of full size", access="none", norms=("linf", "l2", "l1"))
@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """One random direction per image, scaled to every budget; spends no pass.

    Attributes:
        kind: ``sign`` (corners of the Linf ball; L2 and L1: uniform on the sphere) or ``uniform`` (anywhere in the
            cube; L2 and L1: in the ball, at uniform radius).
        draw: which direction; another number gives another.
    """

    iterated: ClassVar[bool] = False

    kind: Literal["sign", "uniform"] = "sign"
    draw: int = 0

    def __post_init__(self) -> None:
        if self.draw < 0:
            raise ValueError(f"draw must be 0 or more, not {self.draw}")

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        if self.norm == "linf":
            unit = 2 * uniform(target, images, self.draw) - 1
            unit = unit.sign() if self.kind == "sign" else unit
        else:
            unit = random_direction(target, images, self.norm, self.draw)
            if self.kind == "uniform":
                unit = unit * target.uniform(1, self.draw).view(-1, 1, 1, 1)
        return torch.stack([(images + budget * unit).clamp(0, 1) for budget in budgets])
