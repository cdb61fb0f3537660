"""Policies: how the decisions of a dynamic network are made from its margins and scores.

A policy is always explicit and never follows ``module.training``, which attack libraries flip. Switches and exits bring
a margin: their unit runs with probability sigmoid(margin). Routers bring one score per unit. Decisions that are 0 or 1
and carry no gradient are bool, so that a network knows that it can skip what is closed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from robustbench_aig.contracts.routing import chances
from robustbench_aig.contracts.units import exit_level, switch_level

Gradient = Literal["none", "straight-through"]
"""How a hard decision passes gradients: not at all, or as the relaxed decision would (Eq. 9 behind Eq. 8)."""


class Policy(ABC):
    """Turns margins and scores into decisions.

    ``unit`` is the number of the (first) unit that is decided. ``rows`` (n,) tells which of the batch's images the
    margins belong to; None for all of them in order.
    """

    @abstractmethod
    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) whether a unit runs, in [0, 1], for its margins (n,)."""

    def leave(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) whether images go on past an exit, in [0, 1]; sigmoid(margin) is one minus the exit's confidence."""
        return self.switch(unit, margin, rows)

    @abstractmethod
    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        """(n, E) which units run, in [0, 1], for scores (n, E) of which ``chosen`` are chosen."""


def _hard(score: Tensor, level: float, gradient: Gradient, temperature: float = 1.0) -> Tensor:
    decision = score > level
    if gradient == "none" or not score.requires_grad:
        return decision
    soft = torch.sigmoid((score - level) / temperature)
    return decision + (soft - soft.detach())


def _top(scores: Tensor, chosen: int, gradient: Gradient, temperature: float = 1.0) -> Tensor:
    best = scores.topk(chosen, -1).indices
    decision = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True)
    if gradient == "none" or not scores.requires_grad:
        return decision
    soft = chances(scores / temperature, chosen)
    return decision + (soft - soft.detach())


def _own(of_units: Tensor, unit: int | slice, rows: Tensor | None) -> Tensor:
    """What belongs to a unit in (N, L), or in (1, L) that all images share."""
    column = of_units[:, unit]
    return column if rows is None or len(column) == 1 else column[rows]


def gumbel(noise: Tensor) -> Tensor:
    """Standard Gumbel noise from logistic noise, through the same uniform number: -log(-log sigmoid(noise))."""
    return -softplus(-noise).log()


@dataclass(frozen=True)
class Deterministic(Policy):
    """Run a unit where its probability is above the threshold (Eq. 12); leave at an exit whose confidence reaches the
    threshold; choose the units of the largest scores.

    Attributes:
        threshold: in [0, 1]; None is one half for switches and :data:`.units.USUAL_CONFIDENCE` for exits.
        gradient: of the decision.
    """

    threshold: float | None = None
    gradient: Gradient = "none"

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"a gate threshold must lie in [0, 1], not {self.threshold}")

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return _hard(margin, switch_level(self.threshold), self.gradient)

    def leave(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return _hard(margin, exit_level(self.threshold), self.gradient)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        return _top(scores, chosen, self.gradient)


@dataclass(frozen=True)
class Stochastic(Policy):
    """Sample the decisions: a unit runs where margin + logistic noise > 0 (Eq. 8), a router chooses the largest scores
    after adding Gumbel noise (Gumbel top-k, Kool et al. 2019).

    Attributes:
        noise: (N, L) logistic noise, or (1, L) shared by all images.
        gradient: of the decision, by default that of the relaxed sample (straight-through Gumbel-softmax).
        temperature: tau of Eq. 9, used in the backward pass only.
    """

    noise: Tensor
    gradient: Gradient = "straight-through"
    temperature: float = 1.0

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return _hard(margin + _own(self.noise, unit, rows), 0.0, self.gradient, self.temperature)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        noise = gumbel(_own(self.noise, slice(unit, unit + scores.shape[-1]), rows))
        return _top(scores + noise, chosen, self.gradient, self.temperature)


@dataclass(frozen=True)
class Expected(Policy):
    """Run every unit and scale it by its chance of running given the image (the paper's ConvNet-AIG*; also the
    mean-field twin). To first order in the blocks it is the mean over all graphs, and it costs as much as the full
    network."""

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return torch.sigmoid(margin)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        return chances(scores, chosen)


@dataclass(frozen=True)
class Relaxed(Policy):
    """Gumbel-softmax samples in forward and backward (Eq. 9): sigmoid((margin + noise) / temperature)."""

    noise: Tensor
    temperature: float = 1.0

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return torch.sigmoid((margin + _own(self.noise, unit, rows)) / self.temperature)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        noise = gumbel(_own(self.noise, slice(unit, unit + scores.shape[-1]), rows))
        return chances((scores + noise) / self.temperature, chosen)


@dataclass(frozen=True)
class Forced(Policy):
    """Run a given route whatever the network says: (N, L) or (1, L) of 0 and 1."""

    graph: Tensor

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return self._bits(_own(self.graph, unit, rows).expand_as(margin), margin)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        return self._bits(_own(self.graph, slice(unit, unit + scores.shape[-1]), rows).expand_as(scores), scores)

    def _bits(self, bits: Tensor, like: Tensor) -> Tensor:
        return bits.to(like.dtype) if bits.requires_grad else bits > 0.5
