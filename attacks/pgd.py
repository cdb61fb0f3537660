"""Projected gradient descent (Madry et al., 2018), with momentum also MI-FGSM (Dong et al., 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attacks.common.losses import Average, Criterion, Loss
from attacks.common.norms import climb, project, random_point
from attacks.common.search import Run, Search, Stepwise, at_least
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register

IN_HALF = 0.8
"""Share of the steps whose gradients are taken in bfloat16 where that is asked for. With all of them, up to two of 200
images that hang on the last digits of their gradient were lost; with the last fifth in float32, none."""


@register("pgd", "projected gradient steps with restarts", paper="Madry et al. 2018", norms=("linf", "l2", "l1"))
@dataclass(frozen=True, kw_only=True)
class PGD(Stepwise):
    """Steps along the gradient, projected into the ball after each.

    Costs ``restarts x steps`` gradients per image and budget, one forward pass for the clean image and one for each
    run's last iterate; images leave as soon as they are decided. For a random target, candidates (a run's last iterate
    and that of largest loss) are judged on 8 or more ``select`` draws each.

    Attributes:
        steps: per run.
        restarts: runs, each from another start.
        rel_step: step size as a share of the budget.
        step: absolute step size in place of ``rel_step``.
        random_start: start from a random point of the ball; otherwise from the clean image.
        momentum: decay of the accumulated gradient; 0 is plain PGD, 1 MI-FGSM.
        loss: what is maximised.
        average: over the draws of a random target.
        stop: keep the best iterate and let decided images leave. False is the textbook attack: all steps for every
            image, each budget on its own, and the last iterate whatever it is (with restarts, the best of these).
    """

    takes_half: ClassVar[bool] = True

    steps: int = 40
    restarts: int = 1
    rel_step: float = 0.1
    step: float | None = None
    random_start: bool = True
    momentum: float = 0.0
    loss: Loss = "auto"
    average: Average = "loss"
    stop: bool = True

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), restarts=(self.restarts, 1), momentum=(self.momentum, 0))
        size = self.rel_step if self.step is None else self.step
        if not 0 < size < float("inf"):
            raise ValueError(f"{'rel_step' if self.step is None else 'step'} must be above 0, not {size:g}")
        if self.norm == "linf" and self.step is not None and self.step > 1:
            given = f"{self.step:g}"
            raise ValueError(f"step={given} is larger than the range of a pixel; did you mean steps={given}?")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts without a random start would all be the same")

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        if self.stop:
            return super().__call__(target, images, labels, budgets)
        criterion = Criterion.of(self.goal, target, images, labels)
        return torch.stack([self._textbook(target, criterion, images, budget) for budget in budgets])

    def attack(self, search: Search, budget: float) -> None:
        for restart in range(self.restarts):
            part = search.left()
            if not len(part.rows):
                return
            self._run(Run(search, part), budget, restart)

    def _run(self, run: Run, budget: float, restart: int) -> None:
        points = self._start(run.part.target, run.part.clean, budget, restart)
        velocity = torch.zeros_like(points)
        for step in range(self.steps):
            objective = run.part.criterion.objective(self.loss, self.average)
            if step >= IN_HALF * self.steps:
                run.part = run.part.full
            values, gradient, view = run.part.target.gradient(points, objective, restart * self.steps + step)
            going = run.see(points, values, view)
            if going is not None:
                if not len(going):
                    return
                points, gradient, velocity = points[going], gradient[going], velocity[going]
            points, velocity = self._move(points, gradient, velocity, run.part.clean, budget)
        run.end(points)

    def _textbook(self, target: Target, criterion: Criterion, images: Tensor, budget: float) -> Tensor:
        objective = criterion.objective(self.loss, self.average)
        lasts = []
        for restart in range(self.restarts):
            points = self._start(target, images, budget, restart)
            velocity = torch.zeros_like(points)
            for step in range(self.steps):
                _, gradient, _ = target.gradient(points, objective, restart * self.steps + step)
                points, velocity = self._move(points, gradient, velocity, images, budget)
            lasts.append(points)
        if self.restarts == 1:
            return lasts[0]
        search = Search(target, criterion, images)
        for points in lasts:
            search.measure(torch.arange(len(images), device=images.device), points)
        return search.images

    def _start(self, target: Target, images: Tensor, budget: float, restart: int) -> Tensor:
        return random_point(target, images, budget, self.norm, restart) if self.random_start else images

    def _move(
        self, points: Tensor, gradient: Tensor, velocity: Tensor, clean: Tensor, budget: float
    ) -> tuple[Tensor, Tensor]:
        if self.momentum:
            scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
            gradient = velocity = gradient / scale + self.momentum * velocity
        size = self.rel_step * budget if self.step is None else self.step
        return project(climb(points, gradient, size, self.norm), clean, budget, self.norm), velocity
