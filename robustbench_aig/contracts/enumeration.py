"""Enumeration: the routes that sampled decisions can draw, with their probabilities and outcomes.

Decisions are sampled one after the other, each from its own chance given those before it, so P(g | x) of a route g is
the product over its decisions, and an expectation over routes is a finite sum that autograd differentiates. Routes that
begin alike share their beginning in a stepwise network: with L switches all of them together cost (2^L - 1) / L forward
passes, not 2^L. Beginnings that are too unlikely can be left out; what is left is then known to hold all but so much of
the probability. Of other networks, every route is forced in a pass of its own.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from robustbench_aig.contracts.network import Dynamic, State, Stepwise, costs_of, take
from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.routing import choices, route_margin
from robustbench_aig.contracts.trace import Costs, Trace
from robustbench_aig.contracts.units import Exit, Layout, Router
from robustbench_aig.errors import UsageError

LIMIT = 1024
"""Most routes that are enumerated: ten switches."""


@dataclass(frozen=True)
class Enumeration:
    """The routes of N images.

    Complete, there are G = ``layout.count`` routes in the order of :meth:`.units.Layout.routes`. Otherwise G is the
    largest number kept for any image, and the others are filled up with routes of log-probability -inf.

    Attributes:
        logits: (G, N, classes).
        trace: margins along each route and its decisions, (G, N, L).
        log_prob: (G, N), log P(g | x) of sampled decisions; sums to one over the routes if complete.
        work: (N,) int64 units run for each image; ``layout.running`` of them are a forward pass.
    """

    logits: Tensor
    trace: Trace
    log_prob: Tensor
    work: Tensor

    @property
    def mass(self) -> Tensor:
        """(N,) probability of the routes that were kept."""
        return self.log_prob.detach().exp().sum(0)


def require_enumerable(layout: Layout | None) -> None:
    """Refuse what cannot be enumerated.

    Raises:
        UsageError: no decisions, or more than :data:`LIMIT` routes.
    """
    if layout is None:
        raise UsageError(
            "only a network that decides has routes to enumerate; choose one with gates, exits or experts."
        )
    if layout.count > LIMIT:
        number = f"{layout.count:,}" if layout.count < 10**6 else f"more than a million ({len(layout)} units)"
        raise UsageError(
            f"exact enumeration goes up to {LIMIT} routes, this model has {number}; choose another estimator."
        )


def route_number(layout: Layout, routes: Tensor) -> Tensor:
    """(…,) int64 row of :meth:`.units.Layout.routes` for routes (…, L)."""
    bits = (routes > 0.5).long()
    powers = 2 ** torch.arange(routes.shape[-1], device=routes.device)
    if layout.switches_only:
        return bits @ powers
    known = (layout.routes().to(routes.device) > 0.5).long() @ powers
    order = known.argsort()
    return order[torch.searchsorted(known[order], bits @ powers)]


@dataclass
class _Paths:
    """R beginnings of routes: state, whose image each is of, log-probability, margins and decisions so far."""

    state: State
    image: Tensor
    log_prob: Tensor
    margin: Tensor
    opened: Tensor

    def take(self, rows: Tensor) -> "_Paths":
        return _Paths(
            take(self.state, rows),
            *(part[rows] for part in (self.image, self.log_prob, self.margin, self.opened)),
        )


def enumerate_routes(network: Dynamic, images: Tensor, least: float = 0.0) -> Enumeration:
    """Run routes on images (N, C, H, W); differentiable where gradients are on.

    Args:
        network: in eval mode.
        images: in [0, 1].
        least: leave out every beginning of a probability below this; with 0 no route is left out.

    Raises:
        UsageError: the network has too many routes.
    """
    layout = network.layout
    require_enumerable(layout)
    if not isinstance(network, Stepwise):
        return _forced(network, images)
    n = len(images)
    none = images.new_empty(n, 0)
    numbers = torch.arange(n, device=images.device)
    paths = _Paths(network.begin(images), numbers, images.new_zeros(n), none, none)
    work = torch.zeros_like(numbers)
    threshold = math.log(least) if least else -math.inf
    ended: list[tuple[_Paths, Tensor]] = []
    for number in range(len(layout.decisions)):
        paths = _grow(network, number, paths, threshold, work, ended)
    ended.append((paths, network.answer(paths.state)))
    return _arrange(layout, ended, n, costs_of(network, tuple(images.shape[1:])), work, complete=not least)


def _grow(
    network: Stepwise, number: int, paths: _Paths, least: float, work: Tensor, ended: list[tuple[_Paths, Tensor]]
) -> _Paths:
    """Every continuation of every path through a step, less those that are too unlikely."""
    decision = network.layout.decisions[number]
    score = network.score(number, paths.state)
    if isinstance(decision, Router):
        bits_of, log_chance = choices(score, decision.chosen)
        margin = route_margin(score, decision.chosen)
    else:
        own = -score if isinstance(decision, Exit) else score
        bits_of = score.new_tensor([[0.0], [1.0]])
        log_chance = torch.stack([logsigmoid(-own), logsigmoid(own)], 1)
        margin = own[:, None]
    log_prob = paths.log_prob[:, None] + log_chance
    # the likeliest continuation of a path that was kept stays, so that no image runs out of routes
    best = torch.zeros_like(log_prob, dtype=torch.bool).scatter(1, log_prob.argmax(1, keepdim=True), True)
    choice, row = ((log_prob > least) | best).T.nonzero(as_tuple=True)
    bits = bits_of[choice]
    work.index_add_(0, paths.image[row], bits.sum(1).long())
    grown = paths.take(row)
    grown.log_prob = log_prob[row, choice]
    grown.margin = torch.cat([grown.margin, margin[row]], 1)
    grown.opened = torch.cat([grown.opened, bits], 1)
    if isinstance(decision, Exit):
        gone, kept = (choice == 0).nonzero()[:, 0], (choice == 1).nonzero()[:, 0]
        left = grown.take(gone)
        ended.append((left, network.answer(left.state)))
        grown, bits = grown.take(kept), bits[kept]
    taken = bits > 0.5
    grown.state = network.advance(number, grown.state, taken if isinstance(decision, Router) else taken[:, 0])
    return grown


def _arrange(
    layout: Layout, ended: list[tuple[_Paths, Tensor]], n: int, costs: Costs, work: Tensor, *, complete: bool
) -> Enumeration:
    """Lay the paths out as (G, N, …), each image's routes in one column."""

    def whole(name: str) -> Tensor:
        parts = [getattr(paths, name) for paths, _ in ended]
        if parts[0].ndim == 2:
            parts = [torch.nn.functional.pad(part, (0, len(layout) - part.shape[1])) for part in parts]
        return torch.cat(parts)

    image, opened = whole("image"), whole("opened")
    if complete:
        place, height = route_number(layout, opened), layout.count
    else:
        order = image.argsort(stable=True)
        counts = image.bincount(minlength=n)
        first = counts.cumsum(0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - first[image[order]]
        height = int(counts.max())
    at = (place, image)

    def table(values: Tensor, filling: float = 0.0) -> Tensor:
        empty = values.new_full((height, n, *values.shape[1:]), filling)
        return empty.index_put(at, values)

    trace = Trace(table(whole("margin")), table(opened), costs, layout)
    logits = torch.cat([part for _, part in ended])
    return Enumeration(table(logits), trace, table(whole("log_prob"), -math.inf), work)


def _forced(network: Dynamic, images: Tensor) -> Enumeration:
    """Every route of any network, each forced in a pass of its own."""
    layout, n = network.layout, len(images)
    routes = layout.routes().to(images)
    passed = [network.traced(images, Forced(route[None])) for route in routes]
    trace = Trace.join([found for _, found in passed], torch.stack)
    work = torch.full((n,), len(routes) * layout.running, device=images.device, dtype=torch.int64)
    return Enumeration(torch.stack([logits for logits, _ in passed]), trace, trace.log_prob, work)
