"""The one optimiser of the gate family: ascent with momentum and halving steps, many starts, the best iterate by the
metric.

Steps are reviewed every few iterations, whatever their total number, so more steps only ever continue the same run, and
more restarts only ever add runs: the metric of what is returned cannot fall with either, nor with the budget.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attacks._ops import direction, per_image, project, random_point
from attacks.base import Norm
from attacks.gates.estimators import Estimate, Estimator, estimate, judge, resolve
from attacks.gates.objectives import Goal, trace_of
from robustbench_aig.errors import UserError
from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.target import Target, View

MOMENTUM = 0.75
WINDOW = 8
"""Iterations between two reviews of the step size."""

RISING = 0.75
"""The step is halved unless this share of the iterations since the last review raised the pull."""

FIRST_PENALTY, STRICTER, LOOSER = 1.0, 1.5, 0.9
PENALTIES = (1e-3, 1e4)

DRAW_STRIDE = 100_000
"""Step numbers, and so draws, that each restart has to itself."""

SMOOTH = 4
"""Side of the grid of random numbers that a low-frequency start is blown up from."""


Start = Literal["best", "colour", "twin", "smooth", "random"]
"""Where a restart begins: the best so far (at first the clean image), the best constant colour shift, the result on the
deterministic twin of sampled gates (random where there is none), low-frequency noise, a random point of the ball."""


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
    starts: tuple[Start, ...] = ("best", "colour", "twin", "smooth", "random")


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


def maximise(
    target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best | None = None
) -> Best:
    """Perturb images so that the goal's metric grows.

    Args:
        target: what is attacked.
        clean: (N, C, H, W).
        goal: of these images.
        budget: size of the ball.
        search: how hard to search.
        best: candidates from a smaller budget; the clean images if there are none.

    Returns:
        The best candidates; an image for which nothing is better than the clean one stays clean.

    Raises:
        UserError: the goal works through the gates, and no gradient reaches the images through them.
    """
    search = replace(search, estimator=resolve(search.estimator, target))
    if best is None:
        if goal.gates_only:
            require_gate_gradient(target, clean)
        best = Best(clean, judge(target, clean, goal, search.estimator)[0])
    for restart in range(search.restarts):
        start = _start(target, clean, goal, budget, search, best, restart)
        _run(target, clean, goal.variant(restart), budget, search, best, start, restart)
    return best


def require_gate_gradient(target: Target, images: Tensor) -> None:
    """Check that the gates' margins depend on the images in a way that can be differentiated.

    Raises:
        UserError: they do not. That is a finding about the model, not robustness.
    """

    def margins(view: View) -> Tensor:
        return trace_of(view).margin.sum((0, 2))

    try:
        _, gradient, _ = target.gradient(images, margins)
        blind = not gradient.any()
    except RuntimeError:
        blind = True
    if blind:
        raise UserError(
            "no gradient reaches the images through the gates, so gate attacks are blind here and prove no robustness; "
            "attack without gradients (gates:square) or make the gates differentiable."
        )


@dataclass
class _State:
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
    def begin(cls, points: Tensor, eta: float) -> "_State":
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


def _run(
    target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best, start: Tensor, restart: int
) -> None:
    state = _State.begin(start, 2 * budget)
    for step in range(search.steps + 1):
        # each restart has its own draws, whatever the number of steps
        at = restart * DRAW_STRIDE + step
        found = estimate(target, state.points, goal, state.penalty, at, search.estimator, search.draws)
        metric, feasible = found.verdict or judge(target, state.points, goal, search.estimator)
        best.offer(state.points, metric)
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
        state.move(gradient, clean, budget, search.norm, MOMENTUM if step else 1.0)


def _start(
    target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best, restart: int
) -> Tensor:
    kind = search.starts[min(restart, len(search.starts) - 1)]
    if kind == "best":
        return best.images
    if kind == "colour":
        return colour_shift(target, clean, goal, budget, search, best)
    if kind == "twin" and target.gating.stochastic and (other := goal.twin()) is not None:
        twin = replace(target, gating=Gating("deterministic"), draws=1)
        once = replace(search, restarts=1, starts=("best",))
        return maximise(twin, clean, other, budget, once).images
    if kind == "smooth":
        numbers = target.uniform(clean.shape[1] * SMOOTH**2, restart).to(clean) * 2 - 1
        grid = numbers.view(len(clean), clean.shape[1], SMOOTH, SMOOTH)
        smooth = interpolate(grid, clean.shape[2:], mode="bilinear", align_corners=False)
        return (clean + budget * direction(smooth, search.norm)).clamp(0, 1)
    return random_point(target, clean, budget, search.norm, restart).to(clean)


def colour_shift(target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best) -> Tensor:
    """The best of all constant shifts of full size, one sign per channel; each is offered to ``best``.

    Gates read channel means, which a constant shift moves more than any other perturbation of its size.
    """
    own = Best(clean, torch.full_like(best.metric, -torch.inf))
    for signs in product((-1.0, 1.0), repeat=clean.shape[1]):
        shift = clean.new_tensor(signs).view(1, -1, 1, 1).expand_as(clean)
        moved = (clean + budget * direction(shift, search.norm)).clamp(0, 1)
        own.offer(moved, judge(target, moved, goal, search.estimator)[0])
    best.offer(own.images, own.metric)
    return own.images
