"""Auto-PGD (Croce and Hein, 2020): momentum, and a step size that halves where the loss has stopped growing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.common.losses import Average, Loss
from attacks.common.norms import climb, normal, per_image, project, random_point, size, uniform
from attacks.common.search import Run, Search, Stepwise, at_least
from robustbench_aig.contracts.norms import Norm
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register

MOMENTUM = 0.75
"""Weight of the new step; the rest continues the last one (their Eq. 4)."""


def checkpoints(steps: int) -> dict[int, int]:
    """After which steps the step size is reviewed, with the number of steps since the last review (their section 3.3).

    The first gap is 22 % of the steps, each further one 3 % of the steps shorter, down to 6 %.
    """
    gap, shrink, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    reviews, at = {}, gap
    while at < steps:
        reviews[at] = gap
        gap = max(gap - shrink, shortest)
        at += gap
    return reviews


@dataclass
class _State:
    """Everything that a run remembers, one row per image."""

    points: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor
    top_points: Tensor
    top_gradient: Tensor
    top_value: Tensor
    reviewed_value: Tensor
    step: Tensor
    halved: Tensor
    rises: Tensor

    def take(self, index: Tensor) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[index])


@register("apgd", "Auto-PGD; loss=dlr for APGD-DLR", paper="Croce and Hein 2020", norms=("linf", "l2", "l1"))
@dataclass(frozen=True, kw_only=True)
class APGD(Stepwise):
    """Auto-PGD, whose only parameter is how long it runs.

    Costs ``restarts x steps`` gradients per image and budget, and judges candidates as :class:`attacks.pgd.PGD`.
    For a random target, losses (and so step sizes) are means over the gradient's draws, which are fresh at every step.

    Attributes:
        steps: per run.
        restarts: runs, each from another random start.
        loss: ``auto`` (cross-entropy) is APGD-CE, ``dlr`` APGD-DLR.
        average: over the draws of a random target.
        rho: the step halves if fewer than this share of the steps since the last review raised the loss.
    """

    steps: int = 100
    restarts: int = 1
    loss: Loss = "auto"
    average: Average = "loss"
    rho: float = 0.75

    def __post_init__(self) -> None:
        at_least(steps=(self.steps, 1), restarts=(self.restarts, 1), rho=(self.rho, 0))

    def attack(self, search: Search, budget: float) -> None:
        for restart in range(self.restarts):
            part = search.left()
            if not len(part.rows):
                return
            ascend(Run(search, part), budget, self.norm, self.steps, self.loss, self.average, self.rho, restart)


def ascend(
    run: Run, budget: float, norm: Norm, steps: int, loss: Loss, average: Average, rho: float, restart: int
) -> None:
    """One run of Auto-PGD from the random start number ``restart``; the run keeps what it finds."""
    reviews = checkpoints(steps)
    state = _begin(_start(run.part.target, run.part.clean, budget, norm, restart), 2 * budget)
    for number in range(steps):
        objective = run.part.criterion.objective(loss, average)
        value, gradient, view = run.part.target.gradient(state.points, objective, restart * steps + number)
        _record(state, value, gradient, first=number == 0)
        going = run.see(state.points, value, view)
        if going is not None:
            if not len(going):
                return
            state.take(going)
        if number in reviews:
            _review(state, rho * reviews[number])
        _step(state, run.part.clean, budget, norm, 1.0 if number == 0 else MOMENTUM)
    run.end(state.points)


def _start(target: Target, clean: Tensor, budget: float, norm: Norm, restart: int) -> Tensor:
    if norm == "l1":
        return random_point(target, clean, budget, norm, restart)
    offset = 2 * uniform(target, clean, restart) - 1 if norm == "linf" else normal(target, clean, restart)
    return (clean + budget * offset / size(offset, norm)).clamp(0, 1)


def _begin(points: Tensor, step: float) -> _State:
    lowest = points.new_full((len(points),), -torch.inf)
    zeros = torch.zeros_like(points)
    return _State(
        points=points,
        previous=points,
        gradient=zeros,
        value=lowest,
        top_points=points,
        top_gradient=zeros,
        top_value=lowest,
        reviewed_value=lowest,
        step=torch.full_like(lowest, step),
        halved=torch.ones_like(lowest, dtype=torch.bool),
        rises=torch.zeros_like(lowest),
    )


def _record(state: _State, value: Tensor, gradient: Tensor, *, first: bool) -> None:
    """Take in the loss and gradient at the current points."""
    if first:
        state.reviewed_value = value
    else:
        state.rises = state.rises + (value > state.value)
    top = value > state.top_value
    wide = top.view(-1, 1, 1, 1)
    state.top_points = torch.where(wide, state.points, state.top_points)
    state.top_gradient = torch.where(wide, gradient, state.top_gradient)
    state.top_value = torch.where(top, value, state.top_value)
    state.value, state.gradient = value, gradient


def _review(state: _State, enough: float) -> None:
    """Halve the step and return to the best point where too few steps rose, or none gained at an unchanged step."""
    stalled = ~state.halved & (state.reviewed_value >= state.top_value)
    halve = (state.rises <= enough) | stalled
    wide = halve.view(-1, 1, 1, 1)
    state.step = torch.where(halve, state.step / 2, state.step)
    state.points = torch.where(wide, state.top_points, state.points)
    state.gradient = torch.where(wide, state.top_gradient, state.gradient)
    state.halved, state.reviewed_value = halve, state.top_value
    state.rises = torch.zeros_like(state.rises)


def _step(state: _State, clean: Tensor, budget: float, norm: Norm, weight: float) -> None:
    points, inertia = state.points, state.points - state.previous
    ahead = project(climb(points, state.gradient, per_image(state.step), norm), clean, budget, norm)
    mixed = points + weight * (ahead - points) + (1 - weight) * inertia
    state.previous, state.points = points, project(mixed, clean, budget, norm)
