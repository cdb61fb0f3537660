"""What gate attacks maximise: a differentiable pull for every draw, and the metric with hard gates that decides.

Pulls work on margins, which carry a gradient even where decisions are hard. The saturating hinge min(u, kappa) pulls a
confidently closed gate as strongly as an undecided one and stops once a gate is safe, so that the budget goes to the
others.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.margin import finite, wrong
from robustbench_aig.contracts.margin import margin as class_margin
from robustbench_aig.contracts.network import costs_of, is_dynamic
from robustbench_aig.contracts.target import Target
from robustbench_aig.contracts.trace import Trace
from robustbench_aig.contracts.units import Layout
from robustbench_aig.errors import UsageError

NEAR, SAFE = 0.03, 0.1
"""Margins at which a hard gate counts as safe, in units of the gate's score: the budget then goes to the others."""

SELECTION_DRAWS = 8
"""Draws that candidates are compared on where gates are random."""

SLACK = 0.1
"""A held class may lose this share of the draws: the share on the clean image is itself counted on a few draws."""

LabelMode = Literal["free", "held", "moved"]
"""The predicted class: of no interest, must stay as it was, must change (to the prototype's, if there is one)."""

G = TypeVar("G", bound="Goal")


@dataclass(frozen=True)
class Goal(ABC):
    """What an attacker wants of N images; every tensor has the images first.

    Attributes:
        gates_only: the gradient comes through the gates alone, so without one the attack is blind.
        along_teacher: an image counts only where its gates' own choice is the teacher's graph.
    """

    gates_only: ClassVar[bool] = True
    along_teacher: ClassVar[bool] = False

    @abstractmethod
    def values(self, view: View) -> Tensor:
        """(K, N) differentiable pull of each draw; larger is better."""

    @abstractmethod
    def score(self, view: View, weights: Tensor) -> Tensor:
        """(N,) what counts, with hard gates; ``weights`` (K, N) sum to one over the draws."""

    def violation(self, view: View) -> Tensor | None:
        """(K, N) by how much a constraint is broken, 0 where it holds; None where there is none."""
        return None

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        """(N,) whether the constraint holds, with hard gates."""
        return torch.ones_like(weights[0], dtype=torch.bool)

    def metric(self, view: View, weights: Tensor) -> Tensor:
        """(N,) the score, -inf where the constraint is broken."""
        return torch.where(self.feasible(view, weights), self.score(view, weights), -torch.inf)

    @property
    def constraint_free(self) -> bool:
        """Whether there is no constraint."""
        return True

    @property
    def paired(self) -> bool:
        """Whether the metric compares draw by draw with the clean image, so that it needs the selection draws."""
        return False

    @property
    def enough(self) -> float | Tensor:
        """A metric that cannot be improved, for all or (N,) each: images that reach it are left alone."""
        return math.inf

    @property
    def teacher(self) -> Tensor | None:
        """(N, T, L) graphs that the gradient passes are run along in place of the gates' own choice, or None."""
        return None

    @property
    def guard(self) -> "Goal | None":
        """A goal that the gradient must not oppose: the part of the gradient against it is taken out."""
        return None

    @property
    def soft(self) -> float | None:
        """Take the gradient on a soft-gated twin, every block scaled by sigmoid(this times its margin)."""
        return None

    def variant(self, restart: int) -> "Goal":
        """The form of the pull for a restart; the metric is the same in all."""
        return self

    def twin(self, mean: bool) -> "Goal | None":
        """The same wish for a twin of a model with sampled gates, if there is one: mean-field or deterministic."""
        return None

    def take(self: G, index: Tensor) -> G:
        """The goal for a subset of the images."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                taken[field.name] = value[index]
            elif isinstance(value, Goal | Target | Label):
                taken[field.name] = value.take(index)
        return replace(self, **taken)


@dataclass(frozen=True)
class Label:
    """A wish about the predicted class.

    Attributes:
        mode: what is wished.
        classes: (N,) the class to keep, or to reach, or (``away``) to leave.
        share: (N,) in what share of the draws the clean image gets the class: held means no less.
        away: any class but this one will do.
    """

    mode: LabelMode
    classes: Tensor
    share: Tensor
    away: bool = False

    @classmethod
    def of(cls, mode: LabelMode, target: Target, images: Tensor, labels: Tensor, aim: int | None = None) -> "Label":
        """The wish for clean images; one view of them, none if the label is free."""
        if mode == "free":
            return cls(mode, labels, torch.zeros_like(labels, dtype=torch.float32))
        if mode == "held":
            predicted = target.view(images, draws=range(4 * SELECTION_DRAWS)).logits.argmax(-1)
            kept = predicted.mode(0).values
            share = (predicted == kept).float().mean(0)
            return cls(mode, kept, share - SLACK if target.stochastic else share)
        classes = labels if aim is None else torch.full_like(labels, aim)
        return cls(mode, classes, torch.full_like(labels, 0.5, dtype=torch.float32), aim is None)

    def take(self, index: Tensor) -> "Label":
        """The wish for a subset."""
        return replace(self, classes=self.classes[index], share=self.share[index])

    def violation(self, view: View, slack: float = 0.1) -> Tensor | None:
        """(K, N) how far the logits are from the wish, plus some slack."""
        if self.mode == "free":
            return None
        lead = class_margin(view.logits, self.classes, None if self.away else self.classes)
        return (slack - lead).relu()

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        """(N,) whether enough draws give the wanted class."""
        if self.mode == "free":
            return torch.ones_like(self.share, dtype=torch.bool)
        predicted = view.logits.argmax(-1)
        good = predicted != self.classes if self.away else predicted == self.classes
        return ((good & finite(view.logits)) * weights).sum(0) >= self.share - 1e-6


def trace_of(view: View) -> Trace:
    """The trace of a view.

    Raises:
        UsageError: the model decides nothing.
    """
    if view.trace is None:
        raise UsageError("this attack aims at decisions, and the model makes none; attack a dynamic network.")
    return view.trace


def unit_weights(trace: Trace) -> Tensor:
    """(L,) each unit's share of the multiply-adds that decisions can skip."""
    units = trace.costs.units.to(trace.margin)
    return units / units.sum()


def extreme_route(target: Target, images: Tensor, sign: int) -> Tensor:
    """(N, L) the route of most (sign 1) or fewest (sign -1) multiply-adds.

    Raises:
        UsageError: every route costs the same.
    """
    layout = layout_of(target)
    seen = target.seen(images[:1], [0], "select", differentiable=False)
    assert is_dynamic(target.model)
    costs = costs_of(target.model, tuple(seen.shape[1:]))
    if costs.extreme(layout, 1) == costs.extreme(layout, -1):
        raise UsageError("every route through this model costs the same, so no attack changes its compute.")
    return layout.most(costs.units, sign).to(images).expand(len(images), -1)


def layout_of(target: Target) -> Layout:
    """The decisions of a target's network.

    Raises:
        UsageError: it makes none.
    """
    if target.layout is None:
        raise UsageError("this attack aims at decisions, and the model makes none; attack a dynamic network.")
    return target.layout


def lead(trace: Trace, threshold: float | None) -> Tensor:
    """(…, N, L) by how much each margin is on the side of running, under a gating's threshold (Eq. 12)."""
    if threshold is None and not trace.layout.exits:
        return trace.margin
    return trace.margin - trace.layout.shift(threshold).to(trace.margin)


def select(target: Target, images: Tensor) -> View:
    """The view that decides between candidates: hard gates, draws that no gradient used."""
    return target.view(images, draws=range(max(SELECTION_DRAWS, target.draws)))


def even_weights(view: View) -> Tensor:
    """(K, N) equal weights of the draws."""
    return view.logits.new_full(view.logits.shape[:2], 1 / len(view.logits))


def hinge(margin: Tensor, kappa: float) -> Tensor:
    """min(u, kappa)."""
    return margin.clamp_max(kappa)


def error(view: View, labels: Tensor, weights: Tensor) -> Tensor:
    """(N,) chance of a wrong class; between equals the nearer to the boundary is larger."""
    near = torch.sigmoid(class_margin(view.logits, labels))
    return (weights * (wrong(view.logits, labels) + 1e-4 * near)).sum(0)
