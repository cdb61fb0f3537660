"""Policies: how a network's decisions are made from its margins.

A policy is always explicit and never follows ``module.training``, which attack libraries flip. A positive margin means
*run it*, so a decision is "run" with probability sigmoid(margin).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from robustbench_aig.contracts.trace import GateTrace

Gradient = Literal["none", "straight-through"]
"""How a hard decision passes gradients: not at all, or as the relaxed decision would (Eq. 9 behind Eq. 8)."""


class Policy(Protocol):
    """Turns a gate's margins into decisions."""

    @property
    def hard(self) -> bool:
        """Whether every decision is 0 or 1, so that a closed block can be skipped."""

    def decide(self, margins: Tensor, first: int) -> Tensor:
        """Decisions in [0, 1], shape (N, k), of the gates from number ``first`` on for margins of shape (N, k); hard
        ones that carry no gradient may be bool."""


def _threshold(score: Tensor, gradient: Gradient, temperature: float = 1.0, level: float = 0.0) -> Tensor:
    hard = score > level
    if gradient == "none" or not score.requires_grad:
        return hard
    soft = torch.sigmoid((score - level) / temperature)
    return hard + (soft - soft.detach())


def _columns(of_gates: Tensor, margins: Tensor, first: int) -> Tensor:
    return of_gates[:, first : first + margins.shape[1]]


@dataclass(frozen=True)
class Deterministic:
    """Open where softmax(beta)_1 > threshold (Eq. 12)."""

    threshold: float = 0.5
    gradient: Gradient = "none"
    hard = True

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a gate threshold must lie in [0, 1], not {self.threshold}")

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _threshold(margins, self.gradient, level=_logit(self.threshold))


@cache
def _logit(probability: float) -> float:
    return torch.logit(torch.tensor(probability, dtype=torch.float64)).item()


@dataclass(frozen=True)
class Stochastic:
    """Sample the gates (Eq. 8): open where margin + logistic noise > 0.

    Attributes:
        noise: (N, L) logistic noise, or (1, L) shared by all images.
        gradient: of the decision, by default that of the relaxed sample (straight-through Gumbel-softmax).
        temperature: tau of Eq. 9, used in the backward pass only.
    """

    noise: Tensor
    gradient: Gradient = "straight-through"
    temperature: float = 1.0
    hard = True

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _threshold(margins + _columns(self.noise, margins, first), self.gradient, self.temperature)


@dataclass(frozen=True)
class Expected:
    """Run every block and scale it by its expected execution rate given the image, P(open) (the paper's
    ConvNet-AIG*; also the mean-field twin). To first order in the blocks it is the mean over all graphs, and it costs
    as much as the full network."""

    hard = False

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return torch.sigmoid(margins)


@dataclass(frozen=True)
class Relaxed:
    """Gumbel-softmax samples in forward and backward (Eq. 9): sigmoid((margin + noise) / temperature)."""

    noise: Tensor
    temperature: float = 1.0
    hard = False

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return torch.sigmoid((margins + _columns(self.noise, margins, first)) / self.temperature)


@dataclass(frozen=True)
class Forced:
    """Run a given graph whatever the gates say: (N, L) or (1, L) of 0 and 1."""

    graph: Tensor
    hard = True

    def decide(self, margins: Tensor, first: int) -> Tensor:
        return _columns(self.graph, margins, first).to(margins.dtype).expand_as(margins)


@dataclass
class Recorder:
    """Holds the trace of the last forward pass made inside :func:`gating`."""

    trace: GateTrace | None = field(default=None)


class Gated(Protocol):
    """A network with gates, as :class:`robustbench_aig.models.aig.ConvNetAIG`."""

    policy: Policy
    recorder: Recorder | None

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, GateTrace]: ...


@contextmanager
def gating(model: Gated, policy: Policy) -> Iterator[Recorder]:
    """Use ``policy`` for every plain ``model(images)`` call inside the block; yields the recorder of the last trace."""
    before = model.policy, model.recorder
    model.policy, model.recorder = policy, Recorder()
    try:
        yield model.recorder
    finally:
        model.policy, model.recorder = before
