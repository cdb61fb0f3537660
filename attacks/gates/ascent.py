"""The one ascent of the gate family: momentum, steps that halve, the best iterate by the metric.

Steps are reviewed every few iterations, whatever their total number, so more steps only ever continue the same run.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from attacks.common.norms import direction, per_image, project
from attacks.gates.estimators import Estimate, Estimator, estimate, judge
from attacks.gates.objectives import Goal
from robustbench_aig.contracts.norms import Norm
from robustbench_aig.contracts.target import Target

FIRST_STEP = 0.125
"""Share of the budget that the first step goes. Gates are decided at hyperplanes that a long step jumps over: over 20
steps to the ball's full diameter, as for classes, fewer than half as many gates were won."""

MOMENTUM = 0.75
WINDOW = 8
"""Iterations between two reviews of the step size."""

RISING = 0.75
"""The step is halved unless this share of the iterations since the last review raised the pull."""

FIRST_PENALTY, STRICTER, LOOSER = 1.0, 1.5, 0.9
PENALTIES = (1e-3, 1e4)

DRAW_STRIDE = 100_000
"""Step numbers, and so draws, that each restart has to itself."""


Start = Literal["best", "mean", "colour", "twin", "smooth", "random"]
"""Where a restart begins: the best so far (at first the clean image); the result on the mean-field or on the
deterministic twin of sampled gates (the best so far where they are not sampled); the best constant colour shift;
low-frequency noise; a random point of the ball."""


@dataclass(frozen=True)
class Search:
    """How hard to search.

    Attributes:
        norm: of the ball.
        steps: from every start.
        restarts: how many starts.
        estimator: of gradients.
        draws: of gradients, 0 to double them.
        starts: of the restarts, in order; the last is repeated.
    """

    norm: Norm
    steps: int
    restarts: int
    estimator: Estimator = "auto"
    draws: int = 0
    starts: tuple[Start, ...] = ("best",)


@dataclass
class Best:
    """The best candidates so far: images (N, C, H, W) and their metric (N,)."""

    images: Tensor
    metric: Tensor

    def offer(self, images: Tensor, metric: Tensor) -> None:
        """Keep the images that are better."""
        better = metric > self.metric
        self.images = torch.where(per_image(better), images, self.images)
        self.metric = torch.where(better, metric, self.metric)

    def take(self, rows: Tensor) -> "Best":
        """The candidates of a subset."""
        return Best(self.images[rows], self.metric[rows])

    def put(self, rows: Tensor, part: "Best") -> None:
        """Write a subset back."""
        self.images = self.images.index_copy(0, rows, part.images)
        self.metric = self.metric.index_copy(0, rows, part.metric)


@dataclass
class State:
    """One run: where it is and was, its best point by the pull with the gradient there, and each image's step size."""

    points: Tensor
    previous: Tensor
    peak: Tensor
    peak_gradient: Tensor
    top: Tensor
    last: Tensor
    reviewed: Tensor
    rises: Tensor
    eta: Tensor
    halved: Tensor
    penalty: Tensor

    @classmethod
    def begin(cls, points: Tensor, eta: float) -> "State":
        lowest = points.new_full((len(points),), -torch.inf)
        return cls(
            points=points,
            previous=points,
            peak=points,
            peak_gradient=torch.zeros_like(points),
            top=lowest,
            last=lowest,
            reviewed=lowest,
            rises=torch.zeros_like(lowest),
            eta=torch.full_like(lowest, eta),
            halved=torch.ones_like(lowest, dtype=torch.bool),
            penalty=torch.full_like(lowest, FIRST_PENALTY),
        )

    def take(self, rows: Tensor) -> "State":
        """The run of a subset."""
        return State(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def record(self, found: Estimate) -> None:
        """Take in the pull and gradient at the current points."""
        higher = found.values > self.top
        self.rises = self.rises + (found.values > self.last)
        self.peak = torch.where(per_image(higher), self.points, self.peak)
        self.peak_gradient = torch.where(per_image(higher), found.gradient, self.peak_gradient)
        self.top, self.last = self.top.maximum(found.values), found.values

    def review(self) -> Tensor:
        """Halve the step of the images whose pull rises too rarely or not at all; returns which, (N,) bool."""
        halve = (self.rises < RISING * WINDOW) | (~self.halved & (self.top <= self.reviewed))
        self.eta = torch.where(halve, self.eta / 2, self.eta)
        self.halved, self.reviewed, self.rises = halve, self.top, torch.zeros_like(self.rises)
        return halve

    def adapt(self, feasible: Tensor) -> None:
        """Weigh the constraint more for images that break it, less for the others."""
        self.penalty = torch.where(feasible, self.penalty * LOOSER, self.penalty * STRICTER).clamp(*PENALTIES)

    def move(self, gradient: Tensor, clean: Tensor, budget: float, norm: Norm, weight: float) -> None:
        """A step along the gradient, continued by the last one."""
        ahead = project(self.points + per_image(self.eta) * direction(gradient, norm), clean, budget, norm)
        mixed = self.points + weight * (ahead - self.points) + (1 - weight) * (self.points - self.previous)
        self.previous, self.points = self.points, project(mixed, clean, budget, norm)


def ascend(
    target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best, start: Tensor, restart: int
) -> None:
    """One start; an image is left alone as soon as nothing better is possible."""
    state, rows = State.begin(start, FIRST_STEP * budget), torch.arange(len(clean), device=clean.device)
    for step in range(search.steps + 1):
        # each restart has its own draws, whatever the number of steps
        at = restart * DRAW_STRIDE + step
        found = estimate(target, state.points, goal, state.penalty, at, search.estimator, search.draws)
        metric, feasible = found.verdict or judge(target, state.points, goal, search.estimator)
        part = best.take(rows)
        part.offer(state.points, metric)
        best.put(rows, part)
        if step == search.steps:
            return
        state.record(found)
        gradient = found.gradient
        state.adapt(feasible)
        if step and step % WINDOW == 0:
            halve = per_image(state.review())
            # pulls under different penalties do not compare, so with a constraint there is no best point to go back to
            if goal.constraint_free:
                state.points = torch.where(halve, state.peak, state.points)
                gradient = torch.where(halve, state.peak_gradient, gradient)
        unfinished = (part.metric < goal.enough).nonzero()[:, 0]
        if len(unfinished) < len(rows):
            if not len(unfinished):
                return
            rows, target, goal, clean = (
                rows[unfinished],
                target.take(unfinished),
                goal.take(unfinished),
                clean[unfinished],
            )
            state, gradient = state.take(unfinished), gradient[unfinished]
        state.move(gradient, clean, budget, search.norm, MOMENTUM if step else 1.0)
