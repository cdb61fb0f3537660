"""The goals of the family: compute, routes, wrong classes, and wrong classes with every gate held."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attacks.gates.objectives import KAPPA, Goal, Label, block_weights, error, hinge, trace_of
from attacks.losses import ce
from attacks.losses import margin as class_margin
from robustbench_aig.evaluation.target import View


@dataclass(frozen=True)
class Compute(Goal):
    """More (sign 1) or less (sign -1) executed multiply-adds, as a share of those that gates can skip.

    Attributes:
        sign: 1 or -1.
        label: what must become of the class.
        random: gates are sampled, so that the pull is their probability of being open: the exact expected compute.
        shift: what a margin must exceed.
        pull: for hard gates, the hinge on margins or the one on probabilities; restarts alternate.
        kappa: of the hinge on margins.
    """

    sign: int
    label: Label
    random: bool
    shift: float = 0.0
    pull: Literal["margin", "probability"] = "margin"
    kappa: float = KAPPA

    def values(self, view: View) -> Tensor:
        trace = trace_of(view)
        wanted = self.sign * (trace.margin - self.shift)
        if self.random:
            scores = torch.sigmoid(wanted)
        elif self.pull == "margin":
            scores = hinge(wanted, self.kappa)
        else:
            scores = torch.sigmoid(wanted).clamp_max(0.5)
        return scores @ block_weights(trace)

    def score(self, view: View, weights: Tensor) -> Tensor:
        trace = trace_of(view)
        # each gate's chance given the gates before it has the same mean as its decision, and less variance
        opened = trace.prob if self.random else trace.open
        return self.sign * ((opened @ block_weights(trace)) * weights).sum(0)

    def violation(self, view: View) -> Tensor | None:
        return self.label.violation(view)

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        return self.label.feasible(view, weights)

    @property
    def constraint_free(self) -> bool:
        return self.label.mode == "free"

    def twin(self) -> "Compute":
        return replace(self, random=False)

    def variant(self, restart: int) -> "Compute":
        kinds: tuple[Literal["margin", "probability"], ...] = ("margin", "probability")
        return replace(self, pull=kinds[restart % 2], kappa=KAPPA if restart % 4 < 2 else 0.1)


@dataclass(frozen=True)
class Route(Goal):
    """Each image's gates follow rates of its own: 0 and 1 are a graph, anything between the habits of a class.

    Along a wanted graph all margins are smooth in the image, while those along the gates' own choices jump whenever a
    gate flips, so every second restart runs the gradient passes along the wanted graph.

    Attributes:
        rates: (N, L) wanted chances of being open.
        label: what must become of the class.
        random: gates are sampled; the pull is then minus the divergence of the rates from the chances, which along a
            wanted graph is its log-probability.
        shift: what a margin must exceed.
        kappa: of the hinge on margins of hard gates.
        worst: pull on the gate that is furthest from its wish, in place of all of them.
        along: run the gradient passes along the wanted graph.
    """

    rates: Tensor
    label: Label
    random: bool
    shift: float = 0.0
    kappa: float = KAPPA
    worst: bool = False
    along: bool = True

    def values(self, view: View) -> Tensor:
        margin = trace_of(view).margin
        if self.random:
            return (self.rates * logsigmoid(margin) + (1 - self.rates) * logsigmoid(-margin)).mean(-1)
        wanted = (2 * self.rates - 1) * (margin - self.shift)
        return wanted.amin(-1) if self.worst else hinge(wanted, self.kappa).mean(-1)

    def score(self, view: View, weights: Tensor) -> Tensor:
        trace = trace_of(view)
        chance = trace.prob if self.random else trace.open
        if not self.is_graph:
            return 1 - ((chance * weights[..., None]).sum(0) - self.rates).abs().mean(-1)
        agreement = 1 - (chance - self.rates).abs().mean(-1)
        reached = (trace.open == self.rates).all(-1).to(weights)
        return ((agreement + reached) * weights).sum(0)

    def violation(self, view: View) -> Tensor | None:
        return self.label.violation(view)

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        return self.label.feasible(view, weights)

    @property
    def constraint_free(self) -> bool:
        return self.label.mode == "free"

    def twin(self) -> "Route":
        return replace(self, random=False)

    @property
    def is_graph(self) -> bool:
        """Whether every rate is 0 or 1."""
        return bool(((self.rates == 0) | (self.rates == 1)).all())

    @property
    def teacher(self) -> Tensor | None:
        return self.rates[:, None] if self.along and self.is_graph else None

    def variant(self, restart: int) -> "Route":
        return replace(self, along=restart % 2 == 0, worst=restart % 4 == 2, kappa=KAPPA if restart % 4 < 2 else 0.1)


@dataclass(frozen=True)
class Misclassify(Goal):
    """A wrong class, with a pull on the gates beside (weight 0: the ordinary attack with gate gradients).

    Attributes:
        labels: (N,) true classes.
        gates: the pull on the gates.
        weight: of that pull.
        ladder: weights that the restarts take in turn.
    """

    gates_only: ClassVar[bool] = False

    labels: Tensor
    gates: Goal
    weight: float = 0.0
    ladder: tuple[float, ...] = (0.0,)

    def values(self, view: View) -> Tensor:
        loss = ce(view.logits, self.labels)
        return loss + self.weight * self.gates.values(view) if self.weight else loss

    def score(self, view: View, weights: Tensor) -> Tensor:
        return error(view, self.labels, weights)

    def twin(self) -> "Misclassify | None":
        gates = self.gates.twin()
        return None if gates is None else replace(self, gates=gates)

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
        shift: what a margin must exceed.
        kappa: hard gates keep at least this much of their margin, or what they had if that is less.
    """

    gates_only: ClassVar[bool] = False
    paired: ClassVar[bool] = True

    labels: Tensor
    graphs: Tensor
    margins: Tensor
    held: Tensor
    random: bool
    shift: float = 0.0
    kappa: float = 0.02

    @property
    def constraint_free(self) -> bool:
        return False

    @property
    def teacher(self) -> Tensor | None:
        return self.graphs

    def values(self, view: View) -> Tensor:
        return class_margin(view.logits, self.labels).clamp_max(1.0)

    def violation(self, view: View) -> Tensor | None:
        margin, clean = trace_of(view).margin, self.margins.transpose(0, 1)
        if self.random:
            chance = torch.sigmoid(clean)
            divergence = chance * (logsigmoid(clean) - logsigmoid(margin))
            return (divergence + (1 - chance) * (logsigmoid(-clean) - logsigmoid(-margin))).sum(-1)
        sides = 2 * self.graphs.transpose(0, 1) - 1
        floor = (sides * (clean - self.shift)).clamp_max(self.kappa)
        return (floor - sides * (margin - self.shift)).relu().sum(-1)

    def score(self, view: View, weights: Tensor) -> Tensor:
        wrong = view.logits.argmax(-1) != self.labels
        near = torch.sigmoid(class_margin(view.logits, self.labels))
        return (weights * self._same(view) * (wrong + 1e-4 * near)).sum(0)

    def feasible(self, view: View, weights: Tensor) -> Tensor:
        return (weights * self._same(view)).sum(0) >= (0.5 if self.random else 1.0)

    def _same(self, view: View) -> Tensor:
        return (trace_of(view).open == self.held.transpose(0, 1)).all(-1)
