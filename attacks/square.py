"""Square attack (Andriushchenko et al., 2020): random search with square-shaped changes, without gradients."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.common.norms import TINY, direction, length
from attacks.common.search import SELECT_DRAWS, Part, Search, Stepwise, at_least
from robustbench_aig.contracts.margin import margin
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register

_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10 000, after which the share of changed pixels halves."""

_FIRST_LOOK = 200
"""Queries before anyone is given up: fewer are too few to tell a pace from."""

_CHUNK = 64
"""Queries whose random numbers are drawn at once."""


class _Window(NamedTuple):
    """A square per image: (n, 1, H, W) mask and the (n, H, W) row and column of each pixel within the square."""

    mask: Tensor
    row: Tensor
    column: Tensor


@register("square", "random search with squares", paper="Andriushchenko et al. 2020", access="black-box")
@dataclass(frozen=True, kw_only=True)
class Square(Stepwise):
    """Keeps a random change if the margin grows; images leave when they are decided.

    Costs up to ``queries + 3`` forward passes per image and budget. For a random target each query is the mean margin
    over 8 or more ``craft`` draws, the same ones in all queries, so that no lucky draw is kept, and no image leaves.

    Attributes:
        queries: tried changes.
        share: of the pixels that the first changes cover.
        pace: an image also leaves when this many times its pace so far would not break it by the end; 0 for never.
    """

    queries: int = 5000
    share: float = 0.8
    pace: float = 0.0

    def __post_init__(self) -> None:
        at_least(queries=(self.queries, 1), pace=(self.pace, 0))
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share:g}")

    def attack(self, search: Search, budget: float) -> None:
        part = search.left()
        if not len(part.rows):
            return
        decides = not part.target.stochastic and not part.target.transfer
        channels, height, width = part.clean.shape[1:]
        slots = 6 + 2 * channels
        points = self._start(part, budget)
        run = _Run(part, points, _margins(part, points), part.clean.new_empty(len(points), 0))
        history = _History(self.queries)
        for query in range(self.queries):
            if query % _CHUNK == 0:
                drawn = run.part.target.uniform(_CHUNK * slots, 1 + query // _CHUNK)
                run = run._replace(numbers=drawn.view(-1, _CHUNK, slots))
            if decides:
                run = self._without_decided(search, run, history, query)
                if not len(run.points):
                    return
            side = math.sqrt(self._share(query) * height * width)
            change = self._linf if self.norm == "linf" else self._l2
            tried = change(run.part.clean, run.points, budget, side, run.numbers[:, query % _CHUNK])
            run = run.better(tried, _margins(run.part, tried))
        search.measure(run.part.rows, run.points)

    def _without_decided(self, search: Search, run: "_Run", history: "_History", query: int) -> "_Run":
        """The run without the images that are misclassified, or given up; those go into the search."""
        leaves = run.margins > 0
        if self.pace:
            leaves |= history.hopeless(query, run.margins, self.pace)
        if not bool(leaves.any()):
            return run
        margins = run.margins[leaves]
        search.offer(run.part.rows[leaves], run.points[leaves], (margins > 0).float(), margins)
        stay = (~leaves).nonzero()[:, 0]
        history.take(stay)
        return run.take(stay)

    def _share(self, query: int) -> float:
        scaled = int(query / self.queries * 10000)
        return self.share * 0.5 ** sum(scaled > bound for bound in _SCHEDULE)

    def _start(self, part: Part, budget: float) -> Tensor:
        clean = part.clean
        count, channels, height, width = clean.shape
        if self.norm == "linf":
            stripes = (part.target.uniform(channels * width, 0) - 0.5).sign().view(count, channels, 1, width)
            return (clean + budget * stripes).clamp(0, 1)
        side = max(height // 5, 1)
        down, across = height // side, width // side
        signs = (part.target.uniform(channels * down * across + 1, 0) - 0.5).sign()
        tile = _bump(side, clean).expand(count, side, side)
        tile = torch.where(signs[:, -1, None, None] > 0, tile.mT, tile)
        tiles = signs[:, :-1].view(count, channels, down, 1, across, 1) * tile[:, None, None, :, None, :]
        offset = torch.zeros_like(clean)
        offset[:, :, : down * side, : across * side] = tiles.reshape(count, channels, down * side, across * side)
        return (clean + budget * direction(offset, "l2")).clamp(0, 1)

    @staticmethod
    def _linf(clean: Tensor, points: Tensor, budget: float, side: float, numbers: Tensor) -> Tensor:
        window = _window(points, max(round(side), 1), numbers[:, 0], numbers[:, 1])
        signs = (numbers[:, 6 : 6 + points.shape[1]] - 0.5).sign()[:, :, None, None]
        moved = points + 2 * budget * signs * window.mask
        return (clean + (moved - clean).clamp(-budget, budget)).clamp(0, 1)

    @staticmethod
    def _l2(clean: Tensor, points: Tensor, budget: float, side: float, numbers: Tensor) -> Tensor:
        """Move the size of one window, and what the budget leaves unused, into a new bump in another window."""
        channels, height, width = points.shape[1:]
        edge = min(max(round(side), 3) | 1, height, width)
        offset = points - clean
        here = _window(points, edge, numbers[:, 0], numbers[:, 1])
        there = _window(points, edge, numbers[:, 2], numbers[:, 3])
        either = here.mask.maximum(there.mask)
        unused = (budget**2 - length(offset) ** 2).clamp_min(0) / channels
        bump = _bump(edge, clean)
        turned = numbers[:, 4, None, None] > 0.5
        shape = torch.where(turned, bump.mT[here.row, here.column], bump[here.row, here.column])[:, None] * here.mask
        signs = (numbers[:, 6 : 6 + channels] - 0.5).sign()[:, :, None, None]
        old = offset * here.mask
        fresh = signs * shape + old / _lengths(old)
        size = (unused + length(offset * either) ** 2).sqrt()
        moved = offset * (1 - either) + fresh / _lengths(fresh) * size
        return (clean + budget * direction(moved, "l2")).clamp(0, 1)


class _Run(NamedTuple):
    """Where the n images that are left stand: best points so far, their margins, numbers for the next queries."""

    part: Part
    points: Tensor
    margins: Tensor
    numbers: Tensor

    def take(self, index: Tensor) -> "_Run":
        """The images ``index``."""
        return _Run(self.part.take(index), self.points[index], self.margins[index], self.numbers[index])

    def better(self, points: Tensor, margins: Tensor) -> "_Run":
        """With those of ``points`` whose margins are larger."""
        grows = margins > self.margins
        best = torch.where(grows.view(-1, 1, 1, 1), points, self.points)
        return self._replace(points=best, margins=torch.where(grows, margins, self.margins))


class _History:
    """The margins of a run so far, and from them who cannot be broken by its end.

    Margins rise ever more slowly, so that the pace of the second half of the queries so far is more than what can be
    expected of those to come.
    """

    def __init__(self, queries: int) -> None:
        self.queries = queries
        self.every = max(queries // 40, 1)
        self.past: list[Tensor] = []

    def hopeless(self, query: int, margins: Tensor, factor: float) -> Tensor:
        """(n,) bool: ``factor`` times the pace leaves the margins below 0; to be asked at every query."""
        number, between = divmod(query, self.every)
        if between:
            return torch.zeros_like(margins, dtype=torch.bool)
        self.past.append(margins)
        if query < _FIRST_LOOK or number % 2:
            return torch.zeros_like(margins, dtype=torch.bool)
        half = query // 2
        pace = (margins - self.past[number // 2]) / (query - half)
        return margins + factor * pace * (self.queries - query) < 0

    def take(self, index: Tensor) -> None:
        """Keep the images ``index``."""
        self.past = [margins[index] for margins in self.past]


def _lengths(channels: Tensor) -> Tensor:
    """(n, C, 1, 1) length of each channel."""
    lengths: Tensor = channels.flatten(2).norm(dim=2).clamp_min(TINY)[:, :, None, None]
    return lengths


def _window(points: Tensor, side: int, down: Tensor, across: Tensor) -> _Window:
    height, width = points.shape[2:]
    side = min(side, height, width)
    top = (down * (height - side + 1)).long().clamp_max(height - side)
    left = (across * (width - side + 1)).long().clamp_max(width - side)
    row = torch.arange(height, device=points.device)[None, :] - top[:, None]
    column = torch.arange(width, device=points.device)[None, :] - left[:, None]
    inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
    grid = row.clamp(0, side - 1)[:, :, None].expand_as(inside), column.clamp(0, side - 1)[:, None, :].expand_as(inside)
    return _Window(inside[:, None].to(points.dtype), *grid)


def _bump(side: int, like: Tensor) -> Tensor:
    """(side, side) change of unit length: a peak in the upper half and its negative in the lower."""
    upper = _peak(side // 2, side, like)
    lower = _peak(side - side // 2, side, like)
    bump = torch.cat([upper, -lower])
    unit: Tensor = bump / bump.norm()
    return unit


def _peak(height: int, width: int, like: Tensor) -> Tensor:
    """Nested rectangles around the centre, ring k adding 1/k^2 (their Eq. 2), of unit length."""
    peak = like.new_zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(height // 2 + 1, width // 2 + 1)):
        rows = slice(max(top - ring, 0), min(top + ring + 1, height))
        columns = slice(max(left - ring, 0), min(left + ring + 1, width))
        peak[rows, columns] += 1 / (ring + 1) ** 2
    unit: Tensor = peak / peak.norm().clamp_min(TINY)
    return unit


def _margins(part: Part, points: Tensor) -> Tensor:
    """(n,) mean margin; of a random target over the same ``craft`` draws in every query."""
    target: Target = part.target
    view = target.view(points, "craft", range(max(SELECT_DRAWS, target.draws)))
    return margin(view.logits, part.criterion.labels, part.criterion.classes).mean(0)
