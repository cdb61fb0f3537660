"""Gradients of an expectation over sampled gates, E_g[l(x, g)], by seven estimators behind one function.

``straight-through``: sampled gates, backward through the relaxed sample (the official code; biased).
``soft``: every block scaled by its chance of being open, one pass (mean field; biased).
``score-function``: the pathwise gradient plus (l - mean of the other draws) times that of log P(g | x) (unbiased;
Kool et al. 2019).
``local-expectation``: the pathwise gradient plus, for every gate, the difference that flipping it makes, with all
later gates decided anew under the same noise, times the gradient of its chance (unbiased; Titsias and Lazaro-Gredilla
2015).
``likely``: the graphs of probability above 1/1000 given that it is one of them, by enumeration that leaves the others
out; ``likeliest``: above 1/100, for half the passes.
``exact``: all 2^L graphs.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from attacks.common.norms import TINY
from attacks.gates.objectives import Goal, even_weights, layout_of, lead, select, trace_of
from robustbench_aig.contracts.enumeration import LIMIT, enumerate_routes, require_enumerable
from robustbench_aig.contracts.forward import View, policy_of
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.noise import Stage
from robustbench_aig.contracts.policy import Forced, Policy, Relaxed
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UsageError

Estimator = Literal[
    "auto", "straight-through", "soft", "score-function", "local-expectation", "likeliest", "likely", "exact"
]
"""``auto``: the likely graphs up to ten gates, straight-through above."""

LEAST: dict[Estimator, float] = {"exact": 0.0, "likely": 1e-3, "likeliest": 1e-2}
"""Estimators by enumeration: graphs whose beginning is less probable than this are left out."""

FIRST_DRAWS = 4
MOST_DRAWS = 64
FIDELITY = 0.9
"""Draws are doubled until the gradient's expected cosine to its own limit is at least this."""

GRAPHS_AT_ONCE = 8192


@dataclass(frozen=True)
class Estimate:
    """A gradient.

    Attributes:
        values: (N,) mean pull.
        gradient: (N, C, H, W).
        verdict: (N,) the goal's metric and (N,) whether its constraint holds, where the estimator knows both exactly.
    """

    values: Tensor
    gradient: Tensor
    verdict: tuple[Tensor, Tensor] | None = None


def resolve(estimator: Estimator, target: Target) -> Estimator:
    """What ``auto`` stands for.

    Raises:
        UsageError: an estimator by enumeration for a model that cannot be enumerated, or one of single gates for
            other decisions.
    """
    if estimator in LEAST:
        require_enumerable(target.layout)
    if estimator == "local-expectation" and not layout_of(target).switches_only:
        raise UsageError("estimator 'local-expectation' flips single gates; choose another for exits and experts.")
    if estimator == "auto":
        return "likely" if layout_of(target).count <= LIMIT else "straight-through"
    return estimator


def estimate(
    target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, estimator: Estimator, draws: int
) -> Estimate:
    """Value and gradient of ``E[goal.values - penalty * goal.violation]``.

    Args:
        target: what is attacked; where its gates are not sampled, its own gradient is taken.
        images: (N, C, H, W).
        goal: of these images.
        penalty: (N,) weight of the constraint.
        step: names the draws.
        estimator: for sampled gates; not ``auto``.
        draws: how many, 0 to double them for each image until its gradient is steady.
    """
    if goal.guard is not None:
        held = estimate(target, images, goal.guard, penalty, step, estimator, draws).gradient
        found = _estimate(target, images, goal, penalty, step, estimator, draws)
        return replace(found, gradient=_without(found.gradient, held))
    return _estimate(target, images, goal, penalty, step, estimator, draws)


def _without(gradient: Tensor, held: Tensor) -> Tensor:
    """The gradient less its component against ``held``, per image (N, C, H, W)."""
    against = (gradient * held).sum((1, 2, 3), keepdim=True).clamp_max(0)
    return gradient - against / held.square().sum((1, 2, 3), keepdim=True).clamp_min(TINY) * held


def _estimate(
    target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, estimator: Estimator, draws: int
) -> Estimate:
    if goal.soft is not None:
        policy = Relaxed(images.new_zeros(1, len(layout_of(target))), 1 / goal.soft)
        once = replace(target, draws=1)
        values, gradient, _ = once.gradient(images, lambda view: _pull(goal, view, penalty).mean(0), step, policy)
        return Estimate(values, gradient)
    if goal.teacher is not None:
        return _along(target, images, goal, goal.teacher, penalty, step)
    if not target.gating.stochastic:
        return _pathwise(target, images, goal, penalty, step)
    if estimator in LEAST:
        return _exact(target, images, goal, penalty, step, LEAST[estimator])
    if estimator == "soft":
        return replace(_pathwise(replace(target, gating=Gating("expected")), images, goal, penalty, step), verdict=None)
    draws = draws or (target.draws if target.fixed_noise else 0)
    if draws:
        return _sampled(replace(target, draws=draws), images, goal, penalty, step, estimator)
    return _doubling(target, images, goal, penalty, step, estimator)


def _pull(goal: Goal, view: View, penalty: Tensor) -> Tensor:
    values, violation = goal.values(view), goal.violation(view)
    return values if violation is None else values - penalty * violation


def _pathwise(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int) -> Estimate:
    values, gradient, view = target.gradient(images, lambda view: _pull(goal, view, penalty).mean(0), step)
    return Estimate(values, gradient, _verdict(goal, view) if target.exact else None)


def _verdict(goal: Goal, view: View) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        weights = even_weights(view)
        return goal.metric(view, weights), goal.feasible(view, weights)


def _along(target: Target, images: Tensor, goal: Goal, graphs: Tensor, penalty: Tensor, step: int) -> Estimate:
    """Gradient with the graphs (N, T, L) forced: exact in the image, as nothing is decided."""
    policy = Forced(graphs.transpose(0, 1).flatten(0, 1))
    forced = replace(target, draws=graphs.shape[1])
    values, gradient, view = forced.gradient(images, lambda view: _pull(goal, view, penalty).mean(0), step, policy)
    if not (goal.along_teacher and target.exact):
        return Estimate(values, gradient)
    # gates decide one after the other, so theirs is this graph exactly if every margin along it is on its side
    trace = trace_of(view)
    own = ((lead(trace, target.gating.threshold) > 0) & trace.reached).to(trace.open)
    return Estimate(values, gradient, _verdict(goal, View(view.logits, replace(trace, open=own))))


def _exact(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, least: float) -> Estimate:
    parts = [
        _exact_part(target.take(rows), images[rows], goal.take(rows), penalty[rows], step, least)
        for rows in torch.arange(len(images), device=images.device).split(_at_once(target))
    ]
    verdicts = [part.verdict for part in parts if part.verdict is not None]
    return Estimate(
        torch.cat([part.values for part in parts]),
        torch.cat([part.gradient for part in parts]),
        (torch.cat([v[0] for v in verdicts]), torch.cat([v[1] for v in verdicts])) if verdicts else None,
    )


def _exact_part(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, least: float) -> Estimate:
    draws = target.draw_numbers(step) if _random_defense(target) else [0]
    verdict: list[tuple[Tensor, Tensor]] = []

    def function(inputs: Tensor) -> Tensor:
        view, weights = _enumerated(target, inputs, draws, target.gradient_stage, least, differentiable=True)
        if target.defense.nothing and not goal.paired:
            with torch.no_grad():
                verdict.append((goal.metric(view, weights), goal.feasible(view, weights)))
        return (weights * _pull(goal, view, penalty)).sum(0)

    values, gradient = target.differentiate(images, function)
    return Estimate(values, gradient, verdict[0] if verdict else None)


def _enumerated(
    target: Target, images: Tensor, draws: list[int], stage: Stage, least: float, *, differentiable: bool
) -> tuple[View, Tensor]:
    """The graphs as a view of K = draws x G, and their weights (K, N)."""
    seen = target.seen(images, draws, stage, differentiable=differentiable)
    assert is_dynamic(target.model)
    every = enumerate_routes(target.model, seen, least)
    passes = every.work.view(len(draws), -1).sum(0).div(layout_of(target).running, rounding_mode="floor") + 1
    target.spend(passes, passes if differentiable else 0)
    shape = (-1, len(images))
    trace = every.trace.map(lambda part: part.reshape(*shape, part.shape[-1]))
    view = View(every.logits.view(*shape, every.logits.shape[-1]), trace)
    weights = every.log_prob.exp()
    return view, (weights / weights.sum(0)).view(shape) / len(draws)


def _random_defense(target: Target) -> bool:
    return not target.defense.deterministic


def judges_exactly(target: Target, goal: Goal, estimator: Estimator) -> bool:
    """Whether candidates are compared on the exact metric, not on selection draws."""
    return estimator in LEAST and target.gating.stochastic and not goal.paired and not _random_defense(target)


def judge(target: Target, images: Tensor, goal: Goal, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """(N,) metric and (N,) whether the constraint holds, through the real defence: exact, or on the selection draws."""
    if not judges_exactly(target, goal, estimator):
        view = select(target, images)
        weights = even_weights(view)
        return goal.metric(view, weights), goal.feasible(view, weights)
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(images), device=images.device).split(_at_once(target)):
            part = goal.take(rows)
            view, weights = _enumerated(
                target.take(rows), images[rows], [0], "select", LEAST[estimator], differentiable=False
            )
            parts.append((part.metric(view, weights), part.feasible(view, weights)))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _at_once(target: Target) -> int:
    return max(1, GRAPHS_AT_ONCE // layout_of(target).count)


def _sampled(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, estimator: Estimator) -> Estimate:
    if estimator == "straight-through":
        return _pathwise(replace(target, gate_gradient="straight-through"), images, goal, penalty, step)
    bare = replace(target, gate_gradient="none")
    flipped = _flipping(bare, images, goal, penalty, step) if estimator == "local-expectation" else None

    def objective(view: View) -> Tensor:
        pull, trace = _pull(goal, view, penalty), trace_of(view)
        if flipped is not None:
            gain = (2 * trace.open - 1) * (pull.detach()[..., None] - flipped)
            surrogate = pull + (gain.detach() * trace.prob).sum(-1)
        else:
            others = (pull.sum(0) - pull) / max(1, len(pull) - 1)
            surrogate = pull + (pull - others).detach() * trace.log_prob
        return (surrogate - surrogate.detach() + pull.detach()).mean(0)

    values, gradient, _ = bare.gradient(images, objective, step)
    return Estimate(values, gradient)


@dataclass(frozen=True)
class _Flipped(Policy):
    """Decides as another policy, but the other way for one gate of each row."""

    policy: Policy
    gate: Tensor

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.policy.switch(unit, margin, rows) ^ (self.gate == unit)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        raise AssertionError("only gates are flipped one at a time")


def _flipping(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int) -> Tensor:
    """(K, N, L) pull of the draws of a step if one gate had decided otherwise."""
    n, gates = len(images), len(layout_of(target))
    rows = torch.arange(n, device=images.device).repeat(gates)
    many, draws = target.take(rows), target.draw_numbers(step)
    policy = policy_of(many.model, many.gating, many.named(many.gradient_stage, draws))
    assert policy is not None
    flipped = torch.arange(gates, device=images.device).repeat_interleave(n).repeat(len(draws))
    view = many.view(images[rows], many.gradient_stage, draws, _Flipped(policy, flipped))
    with torch.no_grad():
        pull = _pull(goal.take(rows), view, penalty[rows])
    return pull.view(len(draws), gates, n).transpose(1, 2)


def _doubling(target: Target, images: Tensor, goal: Goal, penalty: Tensor, step: int, estimator: Estimator) -> Estimate:
    """Double each image's draws until two halves of them agree.

    Two independent halves with cosine c have a mean whose expected cosine to the limit is sqrt(2 c / (1 + c))
    (Spearman-Brown). That measures variance; the bias of an estimator stays.
    """
    start = step * MOST_DRAWS

    def part(rows: Tensor, first: int, count: int) -> Estimate:
        some = replace(target.take(rows), draws=count)
        return _sampled(some, images[rows], goal.take(rows), penalty[rows], (start + first) // count, estimator)

    rows, count = torch.arange(len(images), device=images.device), FIRST_DRAWS
    values, gradient = torch.empty_like(penalty), torch.empty_like(images)
    half = part(rows, 0, count)
    while len(rows):
        other = part(rows, count, count)
        mean = Estimate((half.values + other.values) / 2, (half.gradient + other.gradient) / 2)
        values[rows], gradient[rows] = mean.values, mean.gradient
        agreement = cosine_similarity(half.gradient.flatten(1), other.gradient.flatten(1)).clamp_min(0)
        count *= 2
        if 2 * count > MOST_DRAWS:
            break
        open_ = ((2 * agreement / (1 + agreement)).sqrt() < FIDELITY).nonzero()[:, 0]
        rows = rows[open_]
        half = Estimate(mean.values[open_], mean.gradient[open_])
    return Estimate(values, gradient)
