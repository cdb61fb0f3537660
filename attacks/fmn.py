"""Fast minimum-norm attack (Pintor et al., 2021): steps in a ball that shrinks on success and grows on failure."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.common.losses import Average
from attacks.common.minimal import Minimal, Smallest, mean_margin
from attacks.common.norms import direction, limit, per_image, size
from attacks.common.search import Part, at_least
from robustbench_aig.registry import register


@register("fmn", "smallest perturbation, by a ball that shrinks", paper="Pintor et al. 2021", budget="minimal")
@dataclass(frozen=True, kw_only=True)
class FMN(Minimal):
    """One run for all budgets; costs ``steps`` gradients per image and one forward pass per budget.

    Images leave once they are broken at the smallest budget. For a random target a success is a positive mean margin
    over the gradient's draws; what is returned is judged on ``select`` draws.

    Attributes:
        steps: gradient steps.
        step: first L2 length of a step, as a share of the ball's; it falls by a cosine to a hundredth.
        gamma: first relative change of the ball; it falls by a cosine to 0.001.
        average: over the draws of a random target.
    """

    steps: int = 100
    step: float = 0.3
    gamma: float = 0.05
    average: Average = "loss"

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), gamma=(self.gamma, 0.001))
        if not 0 < self.step < math.inf:
            raise ValueError(f"step must be above 0, not {self.step:g}")

    def minimise(self, part: Part, enough: float) -> Tensor:
        decides = part.target.exact and not part.target.transfer
        result = torch.zeros_like(part.clean)
        places = torch.arange(len(part.rows), device=part.rows.device)
        offset, smallest = torch.zeros_like(part.clean), Smallest(part, self.norm)
        radius = torch.full_like(smallest.size, torch.inf)
        for number in range(self.steps):
            objective = part.criterion.objective("margin", self.average)
            value, gradient, view = part.target.gradient(part.clean + offset, objective, number)
            success = smallest.see(offset, mean_margin(part, view.logits))
            radius = self._radius(number, radius, offset, value, gradient, success, smallest)
            if decides and bool((smallest.size <= enough).any()):
                result[places] = smallest.offset
                index = (smallest.size > enough).nonzero()[:, 0]
                if not len(index):
                    return result
                smallest.take(index)
                part, places = part.take(index), places[index]
                offset, gradient, radius = offset[index], gradient[index], radius[index]
            length = self._cosine(number, self.step, self.step / 100) * radius * self._diagonal(part.clean)
            offset = limit(offset + per_image(length) * direction(gradient, "l2"), per_image(radius), self.norm)
            offset = (part.clean + offset).clamp(0, 1) - part.clean
        smallest.see(offset, mean_margin(part, part.target.view(part.clean + offset).logits))
        result[places] = smallest.offset
        return result

    def _diagonal(self, images: Tensor) -> float:
        """L2 radius of a ball of size 1."""
        return math.sqrt(images[0].numel()) if self.norm == "linf" else 1.0

    def _cosine(self, number: int, first: float, last: float) -> float:
        return last + (first - last) * (1 + math.cos(math.pi * number / self.steps)) / 2

    def _radius(
        self,
        number: int,
        radius: Tensor,
        offset: Tensor,
        value: Tensor,
        gradient: Tensor,
        success: Tensor,
        smallest: Smallest,
    ) -> Tensor:
        """Their Algorithm 1: shrink on success, grow on later failure; before any success, jump to the boundary."""
        gamma = self._cosine(number, self.gamma, 0.001)
        dual = gradient.abs().flatten(1).sum(1) if self.norm == "linf" else gradient.flatten(1).norm(dim=1)
        reach = size(offset, self.norm).flatten() + value.abs() / dual.clamp_min(torch.finfo(dual.dtype).tiny)
        outside = torch.where(smallest.size.isfinite(), radius * (1 + gamma), reach)
        inside = (radius * (1 - gamma)).minimum(smallest.size)
        widest = 1.0 if self.norm == "linf" else math.sqrt(offset[0].numel())
        return torch.where(success, inside, outside).clamp_max(widest)
