"""Searches of the gate family: where restarts begin, and the best of all of them.

More restarts only ever add runs, so the metric of what is returned cannot fall with their number, nor with the budget.
"""

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from attacks.common.norms import direction, random_point
from attacks.gates.ascent import Best, Search, ascend
from attacks.gates.estimators import judge, resolve
from attacks.gates.objectives import Goal, trace_of
from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UserError

TWIN_STEPS = 20
"""Steps on a twin, each a tenth or so of the passes of one on sampled gates. They do not grow with the steps of the
search, so that more steps only ever continue the same run."""

SMOOTH = 4
"""Side of the grid of random numbers that a low-frequency start is blown up from."""


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
    if goal.gates_only and target.gating.kind == "deterministic":
        # the relaxed gradient of hard decisions misleads a pull on margins: it costs gates in place of winning some
        target = replace(target, gate_gradient="none")
    if best is None:
        if goal.gates_only:
            require_gate_gradient(target, clean)
        best = Best(clean, judge(target, clean, goal, search.estimator)[0])
    for restart in range(search.restarts):
        rows = (best.metric < goal.enough).nonzero()[:, 0]
        if len(rows):
            part, some, wish, origin = best.take(rows), target.take(rows), goal.take(rows), clean[rows]
            start = _start(some, origin, wish, budget, search, part, restart)
            ascend(some, origin, wish.variant(restart), budget, search, part, start, restart)
            best.put(rows, part)
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


def _start(
    target: Target, clean: Tensor, goal: Goal, budget: float, search: Search, best: Best, restart: int
) -> Tensor:
    kind = search.starts[min(restart, len(search.starts) - 1)]
    other = goal.twin(kind == "mean") if kind in ("mean", "twin") and target.gating.stochastic else None
    if other is not None:
        twin = replace(target, gating=Gating("expected" if kind == "mean" else "deterministic"), draws=1)
        cheap = replace(search, steps=TWIN_STEPS, restarts=1, starts=("best",))
        # what was found for a smaller budget is where it begins, whatever that is worth on the twin
        worst = torch.full_like(best.metric, -torch.inf)
        return maximise(twin, clean, other, budget, cheap, Best(best.images, worst)).images
    if kind in ("best", "mean", "twin"):
        return best.images
    if kind == "colour":
        return colour_shift(target, clean, goal, budget, search, best)
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
