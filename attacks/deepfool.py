"""DeepFool (Moosavi-Dezfooli, Fawzi and Frossard, 2016): steps to the nearest boundary of the linearised model."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.common.minimal import Minimal, Smallest, mean_margin
from attacks.common.norms import per_image
from attacks.common.search import Part, at_least
from robustbench_aig.contracts.forward import View
from robustbench_aig.registry import register


@register("deepfool", "smallest step over a boundary", paper="Moosavi-Dezfooli et al. 2016", budget="minimal")
@dataclass(frozen=True, kw_only=True)
class DeepFool(Minimal):
    """One run for all budgets; costs up to ``steps x (candidates - 1)`` gradients per image.

    An image stops at its first success; with a goal, only the boundary to the class to reach is considered. For a
    random target a success is a positive mean margin over the gradient's draws.

    Attributes:
        steps: linearisations.
        candidates: likeliest classes, the label's included, whose boundaries are considered.
        overshoot: how much further than the boundary to go.
    """

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), candidates=(self.candidates, 2), overshoot=(self.overshoot, 0))

    def minimise(self, part: Part, enough: float) -> Tensor:
        result = torch.zeros_like(part.clean)
        places = torch.arange(len(part.rows), device=part.rows.device)
        rivals = self._rivals(part)
        total, smallest = torch.zeros_like(part.clean), Smallest(part, self.norm)
        points = part.clean
        for step in range(self.steps):
            sizes, moves, logits = self._linearise(part, points, rivals, step)
            success = smallest.see(points - part.clean, mean_margin(part, logits))
            if bool(success.any()):
                result[places] = smallest.offset
                index = (~success).nonzero()[:, 0]
                if not len(index):
                    return result
                smallest.take(index)
                part, places, rivals, total = part.take(index), places[index], rivals[index], total[index]
                sizes, moves = sizes[:, index], moves[:, index]
            nearest = sizes.argmin(0)
            total = total + moves[nearest, torch.arange(len(nearest), device=nearest.device)]
            points = (part.clean + (1 + self.overshoot) * total).clamp(0, 1)
        smallest.see(points - part.clean, mean_margin(part, part.target.view(points).logits))
        result[places] = smallest.offset
        return result

    def _rivals(self, part: Part) -> Tensor:
        """(n, R) classes whose boundary with the label is considered."""
        if part.criterion.classes is not None:
            return part.criterion.classes[:, None]
        scores = part.target.view(part.clean).logits.log_softmax(-1).mean(0)
        scores = scores.scatter(1, part.criterion.labels[:, None], -torch.inf)
        return scores.topk(min(self.candidates, scores.shape[1]) - 1, 1).indices

    def _linearise(self, part: Part, points: Tensor, rivals: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Distance (R, n) to each boundary, the move (R, n, C, H, W) to it, and logits (K, n, classes)."""
        sizes, moves = [], []
        for rival in rivals.T:

            def lead(view: View, rival: Tensor = rival) -> Tensor:
                rows = torch.arange(len(rival), device=rival.device)
                return (view.logits[:, rows, rival] - view.logits[:, rows, part.criterion.labels]).mean(0)

            value, gradient, view = part.target.gradient(points, lead, step)
            flat = gradient.flatten(1)
            dual = (flat.abs().sum(1) if self.norm == "linf" else flat.norm(dim=1)) + 1e-8
            gap = (value.abs() / dual).nan_to_num()  # of NaN logits, whose gradient is 0: the image stays
            ahead = gradient.sign() if self.norm == "linf" else gradient / per_image(dual)
            sizes.append(gap)
            moves.append(per_image(gap + 1e-4) * ahead)
        return torch.stack(sizes), torch.stack(moves), view.logits
