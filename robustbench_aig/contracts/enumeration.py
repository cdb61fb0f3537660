"""Enumeration: the graphs that sampled gates can draw, with their probabilities and outcomes.

Sampled gates decide one after the other, gate l open with probability sigmoid(margin_l(x, g_1 … g_(l-1))), so P(g | x)
is the product over the gates, and an expectation over gates is a sum of 2^L terms that autograd differentiates.
Graphs that begin alike share their beginning: all of them together cost (2^L - 1) / L forward passes, not 2^L.
Beginnings
that are too unlikely can be left out; what is left is then known to hold all but so much of the probability.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.trace import Costs, GateTrace
from robustbench_aig.errors import UsageError

LIMIT = 10
"""Most gates that are enumerated: 1024 graphs per image."""


@dataclass(frozen=True)
class Enumeration:
    """The graphs of N images.

    Complete, there are G = 2^L, and in graph number g gate l is open if bit l of g is set. Otherwise G is the largest
    number kept for any image, and the others are filled up with graphs of log-probability -inf.

    Attributes:
        logits: (G, N, classes).
        trace: margins along each graph and its decisions, (G, N, L).
        log_prob: (G, N), log P(g | x) of sampled gates; sums to one over the graphs if complete.
        work: (N,) int64 residual branches run for each image; L of them are a forward pass.
    """

    logits: Tensor
    trace: GateTrace
    log_prob: Tensor
    work: Tensor

    @property
    def mass(self) -> Tensor:
        """(N,) probability of the graphs that were kept."""
        return self.log_prob.detach().exp().sum(0)


def require_enumerable(gates: int) -> None:
    """Refuse what cannot be enumerated.

    Raises:
        UsageError: no gates, or more than :data:`LIMIT`.
    """
    if not gates:
        raise UsageError("only a model with gates has graphs to enumerate; choose a ConvNet-AIG.")
    if gates > LIMIT:
        raise UsageError(
            f"exact enumeration goes up to {LIMIT} gates, this model has {gates}; choose another estimator."
        )


def all_graphs(gates: int) -> Tensor:
    """(2^L, L) float32: row g holds the bits of g, gate 0 the lowest."""
    numbers = torch.arange(2**gates)[:, None]
    return (numbers >> torch.arange(gates) & 1).float()


def graph_number(graphs: Tensor) -> Tensor:
    """(…,) int64 row of :func:`all_graphs` for graphs (…, L)."""
    return (graphs > 0.5).long() @ (2 ** torch.arange(graphs.shape[-1], device=graphs.device))


@dataclass
class _Paths:
    """R beginnings of graphs: features, whose image each is of, log-probability, margins and decisions so far."""

    x: Tensor
    image: Tensor
    log_prob: Tensor
    margin: Tensor
    opened: Tensor


def enumerate_graphs(model: nn.Module, images: Tensor, least: float = 0.0) -> Enumeration:
    """Run graphs on images (N, C, H, W); differentiable where gradients are on.

    Args:
        model: a ConvNet-AIG in eval mode.
        images: in [0, 1].
        least: leave out every beginning of a probability below this; with 0 no graph is left out.

    Raises:
        UsageError: the model has no gates or too many.
    """
    units: list[nn.Module] = list(getattr(model, "gates", ()))
    require_enumerable(len(units))
    trunk, n = model.trunk, len(images)
    with torch.no_grad():
        idle = Forced(images.new_zeros(1, len(units)))
        costs = model.traced(images[:1], idle)[1].costs  # type: ignore[operator]
    none = images.new_empty(n, 0)
    numbers = torch.arange(n, device=images.device)
    paths = _Paths(trunk.stem(images), numbers, images.new_zeros(n), none, none)  # type: ignore[operator, union-attr]
    work = torch.zeros_like(numbers)
    for block, gate in zip(trunk.blocks, units, strict=True):  # type: ignore[union-attr, arg-type]
        paths = _grow(paths, block, gate, math.log(least) if least else -math.inf, work)
    return _arrange(paths, trunk.head(paths.x), n, costs, work, complete=not least)  # type: ignore[operator, union-attr]


def _grow(paths: _Paths, block: nn.Module, gate: nn.Module, least: float, work: Tensor) -> _Paths:
    """Both continuations of every path through a block, less those that are too unlikely."""
    margin = gate(paths.x)[:, 0]
    shut, wide = paths.log_prob + logsigmoid(-margin), paths.log_prob + logsigmoid(margin)
    # the likelier continuation of a path that was kept stays, so that no image runs out of graphs
    closed = ((shut > least) | (margin <= 0)).nonzero()[:, 0]
    opened = ((wide > least) | (margin > 0)).nonzero()[:, 0]
    work.index_add_(0, paths.image[opened], torch.ones_like(opened))
    shortcut = block.shortcut(paths.x)  # type: ignore[operator]
    run = shortcut[opened] + block.residual(paths.x[opened])  # type: ignore[operator]
    both = torch.cat([closed, opened])
    decisions = torch.cat([margin.new_zeros(len(closed)), margin.new_ones(len(opened))])
    return _Paths(
        block.finish(torch.cat([shortcut[closed], run])),  # type: ignore[operator]
        paths.image[both],
        torch.cat([shut[closed], wide[opened]]),
        torch.cat([paths.margin[both], margin[both, None]], 1),
        torch.cat([paths.opened[both], decisions[:, None]], 1),
    )


def _arrange(paths: _Paths, logits: Tensor, n: int, costs: Costs, work: Tensor, *, complete: bool) -> Enumeration:
    """Lay the paths out as (G, N, …), each image's graphs in one column."""
    gates = paths.opened.shape[1]
    if complete:
        place, height = graph_number(paths.opened), int(2**gates)
    else:
        order = paths.image.argsort(stable=True)
        counts = paths.image.bincount(minlength=n)
        first = counts.cumsum(0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - first[paths.image[order]]
        height = int(counts.max())
    at = (place, paths.image)

    def table(values: Tensor, filling: float = 0.0) -> Tensor:
        empty = values.new_full((height, n, *values.shape[1:]), filling)
        return empty.index_put(at, values)

    trace = GateTrace(table(paths.margin), table(paths.opened), costs)
    return Enumeration(table(logits), trace, table(paths.log_prob, -math.inf), work)
