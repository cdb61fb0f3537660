"""The goals of the family: compute, routes, wrong classes, and wrong classes with every gate held."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.common.losses import ce
from attacks.gates.objectives import NEAR, SAFE, Goal, Label, error, hinge, lead, trace_of, unit_weights
from robustbench_aig.contracts.forward import View
from robustbench_aig.contracts.margin import margin as class_margin
from robustbench_aig.contracts.margin import wrong

Pull = Literal["margin", "probability", "nearest"]
"""On margins, all gates on the wrong side are pulled alike; on probabilities, those that are nearly right more; and
``nearest`` all but spends the budget on one gate after the other."""

FOCUS = 0.3
"""Margin by which a gate must be further from deciding otherwise to get 1/e of the nearest gate's pull."""


@dataclass(frozen=True, kw_only=True)
class Labelled(Goal):
    """A goal with a wish about the predicted class beside.

    Attributes:
        label: what must become of the class.
    """

    label: Label

    def violation(self, view: View) -> Tensor | None:
        return self.label.violation(view)

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        return self.label.feasible(view, weights)

    @property
    def constraint_free(self) -> bool:
        return self.label.mode == "free"


@dataclass(frozen=True, kw_only=True)
class Compute(Labelled):
    """More (sign 1) or less (sign -1) executed multiply-adds, as a share of those that gates can skip.

    Attributes:
        sign: 1 or -1.
        route: (N, L) the route of most, or of fewest, multiply-adds.
        random: decisions are sampled, so that the pull is their probability of running: the exact expected compute.
        threshold: of thresholded decisions.
        pull: of hard gates; restarts alternate.
        kappa: margin at which a gate is safe, so that the pull on it ends.
        along: run the gradient passes of hard gates along the graph with all gates open, or closed, and pull on the
            gate that is furthest from it.
    """

    sign: int
    route: Tensor
    random: bool
    threshold: float | None = None
    pull: Pull = "probability"
    kappa: float = NEAR
    along: bool = False

    def values(self, view: View) -> Tensor:
        trace = trace_of(view)
        if self.random and trace.layout.routers:
            return self.sign * (trace.running @ unit_weights(trace))
        wanted = self.sign * (trace.margin if self.random else lead(trace, self.threshold))
        reach = wanted if self.random else hinge(wanted, self.kappa)
        scores = torch.sigmoid(reach) if self.random or self.pull == "probability" else reach
        if trace.layout.exits:  # what is not reached does not run
            scores = torch.where(trace.reached, scores, float(self.sign < 0))
        if self.along and not self.random and not (trace.layout.exits and self.pull == "margin"):
            return wanted.amin(-1)
        return scores @ unit_weights(trace)

    def score(self, view: View, weights: Tensor) -> Tensor:
        trace = trace_of(view)
        opened = trace.running if self.random else trace.open
        return self.sign * ((opened @ unit_weights(trace)) * weights).sum(0)

    @property
    def enough(self) -> float:
        return (self.sign > 0) - 1e-6

    def twin(self, mean: bool) -> "Compute":
        return replace(self, random=mean)

    def variant(self, restart: int) -> "Compute":
        if restart % 3 == 2:
            return replace(self, along=True)
        return replace(self, pull="margin", kappa=SAFE) if restart % 3 else self

    @property
    def teacher(self) -> Tensor | None:
        return self.route[:, None] if self.along and not self.random else None


@dataclass(frozen=True, kw_only=True)
class Route(Labelled):
    """Each image's gates follow rates of its own: 0 and 1 are a graph, anything between the habits of a class.

    Along a wanted graph all margins are smooth in the image, while those along the gates' own choices jump whenever a
    gate flips, so every second restart runs the gradient passes along the wanted graph. A graph that is out of reach is
    better approached along the gates' own choices, gate by gate.

    Attributes:
        rates: (N, L) wanted chances of being open.
        random: gates are sampled; the pull is then minus the divergence of the rates from the chances, which along a
            wanted graph is its log-probability.
        threshold: of thresholded decisions.
        pull: of hard gates.
        kappa: margin at which a hard gate is safe, so that the pull on it ends.
        worst: pull on the gate that is furthest from its wish, in place of all of them.
        along: run the gradient passes along the wanted graph.
    """

    rates: Tensor
    random: bool
    threshold: float | None = None
    pull: Pull = "probability"
    kappa: float = NEAR
    worst: bool = False
    along: bool = False

    def values(self, view: View) -> Tensor:
        trace = trace_of(view)
        if self.random:
            fit = self.rates * trace.log_run + (1 - self.rates) * trace.log_skip
            return (torch.where(trace.reached, fit, 0.0) if trace.layout.exits else fit).mean(-1)
        wanted = (2 * self.rates - 1) * lead(trace, self.threshold)
        if self.worst:
            return wanted.amin(-1)
        reach = hinge(wanted, self.kappa)
        if self.pull == "nearest":
            wrong = wanted <= 0
            weights = torch.where(wrong, wanted.detach() / FOCUS, -torch.inf).softmax(-1).nan_to_num()
            return torch.where(wrong, weights * wanted, reach).sum(-1)
        return (torch.sigmoid(reach) if self.pull == "probability" else reach).mean(-1)

    def score(self, view: View, weights: Tensor) -> Tensor:
        trace = trace_of(view)
        chance = trace.running if self.random else trace.open
        if not self.is_graph:
            return 1 - ((chance * weights[..., None]).sum(0) - self.rates).abs().mean(-1)
        agreement = 1 - (chance - self.rates).abs().mean(-1)
        reached = (trace.open == self.rates).all(-1).to(weights)
        return ((agreement + reached) * weights).sum(0)

    @property
    def enough(self) -> float:
        return (2.0 if self.is_graph else 1.0) - 1e-6

    def twin(self, mean: bool) -> "Route":
        return replace(self, random=mean, along=not mean and self.along)

    @property
    def is_graph(self) -> bool:
        """Whether every rate is 0 or 1."""
        return bool(((self.rates == 0) | (self.rates == 1)).all())

    @property
    def teacher(self) -> Tensor | None:
        return self.rates[:, None] if self.along and self.is_graph else None

    def variant(self, restart: int) -> "Route":
        pulls: tuple[Pull, ...] = ("probability", "nearest", "margin")
        return replace(self, pull=pulls[restart % 3], along=restart % 4 >= 2, worst=restart % 4 == 3)


@dataclass(frozen=True)
class Misclassify(Goal):
    """A wrong class, with a pull on the gates beside (weight 0: the ordinary attack with gate gradients).

    Attributes:
        labels: (N,) true classes.
        gates: the pull on the gates.
        weight: of that pull.
        random: gates are sampled.
        ladder: weights that the restarts take in turn.
    """

    gates_only: ClassVar[bool] = False

    labels: Tensor
    gates: Goal
    random: bool
    weight: float = 0.0
    ladder: tuple[float, ...] = (0.0,)

    def values(self, view: View) -> Tensor:
        loss = ce(view.logits, self.labels)
        return loss + self.weight * self.gates.values(view) if self.weight else loss

    def score(self, view: View, weights: Tensor) -> Tensor:
        return error(view, self.labels, weights)

    @property
    def enough(self) -> float:
        return math.inf if self.random else 1.0

    def twin(self, mean: bool) -> "Misclassify | None":
        gates = self.gates.twin(mean)
        return None if gates is None else replace(self, gates=gates, random=mean)

    def variant(self, restart: int) -> "Misclassify":
        return replace(self, weight=self.ladder[restart % len(self.ladder)], gates=self.gates.variant(restart))


@dataclass(frozen=True)
class Stealth(Goal):
    """A wrong class with every gate held.

    The gradient passes run along the clean image's graphs, where logits and margins are smooth: if all margins keep
    their sides there, the gates' own choice is that graph. For sampled gates the constraint is the divergence of the
    graphs' distribution, KL(P(. | x) || P(. | x')), whose chain rule is a sum over gates along graphs drawn from the
    clean image.

    Attributes:
        labels: (N,) true classes.
        graphs: (N, T, L) graphs of the clean image in the gradient's draws.
        margins: (N, T, L) clean margins along them.
        held: (N, S, L) graphs of the clean image in the selection draws: an attacked image keeps them draw by draw.
        random: gates are sampled.
        threshold: of thresholded decisions.
        kappa: hard gates keep at least this much of their margin, or what they had if that is less.
    """

    gates_only: ClassVar[bool] = False
    along_teacher: ClassVar[bool] = True

    labels: Tensor
    graphs: Tensor
    margins: Tensor
    held: Tensor
    random: bool
    threshold: float | None = None
    kappa: float = 0.02

    @property
    def paired(self) -> bool:
        return True

    @property
    def constraint_free(self) -> bool:
        return False

    @property
    def enough(self) -> float:
        return math.inf if self.random else 1.0

    @property
    def teacher(self) -> Tensor | None:
        return self.graphs

    def values(self, view: View) -> Tensor:
        return class_margin(view.logits, self.labels).clamp_max(1.0)

    def violation(self, view: View) -> Tensor | None:
        trace = trace_of(view)
        clean = replace(trace, margin=self.margins.transpose(0, 1))
        if self.random:
            return clean.divergence(trace)
        sides = 2 * self.graphs.transpose(0, 1) - 1
        floor = (sides * lead(clean, self.threshold)).clamp_max(self.kappa)
        return (floor - sides * lead(trace, self.threshold)).relu().sum(-1)

    def score(self, view: View, weights: Tensor) -> Tensor:
        near = torch.sigmoid(class_margin(view.logits, self.labels))
        return (weights * self._same(view) * (wrong(view.logits, self.labels) + 1e-4 * near)).sum(0)

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        return (weights * self._same(view)).sum(0) >= (0.5 if self.random else 1.0)

    def _same(self, view: View) -> Tensor:
        return (trace_of(view).open == self.held.transpose(0, 1)).all(-1)
