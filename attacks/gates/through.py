"""``gates:through``: misclassify an image through its gates alone, with its features as they were."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.common.losses import ce
from attacks.gates.base import GateAttack, require_decisions
from attacks.gates.objectives import Goal, error, hinge, layout_of, lead, trace_of
from robustbench_aig.contracts.enumeration import LIMIT, enumerate_routes, route_number
from robustbench_aig.contracts.forward import View, stacked
from robustbench_aig.contracts.margin import wrong
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.oracle import oracle
from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register


@dataclass(frozen=True)
class ThroughGates(Goal):
    """The clean image is misclassified along the graph of the perturbed one.

    Attributes:
        labels: (N,).
        clean: (N, C, H, W).
        target: runs the clean images.
        table: (N, 2^L, classes) logits of the clean images along every graph, or (N, 0) where there are too many.
        graphs: (N, T, L) graphs to route to.
        random: gates are sampled.
        threshold: of thresholded decisions.
        pull: the chance of an error, the cross-entropy of the draws, or the route to graph number ``choice``.
    """

    labels: Tensor
    clean: Tensor
    target: Target
    table: Tensor
    graphs: Tensor
    random: bool
    threshold: float | None
    pull: Literal["error", "loss", "route"] = "error"
    choice: int = 0
    worst: bool = False

    @property
    def enough(self) -> Tensor:
        if not self.table.shape[1]:
            return torch.full_like(self.labels, math.inf if self.random else 1.0, dtype=self.clean.dtype)
        possible = wrong(self.table.transpose(0, 1), self.labels).any(0)
        return torch.where(possible, math.inf if self.random else 1.0, -torch.inf)

    @property
    def teacher(self) -> Tensor | None:
        return self.graphs[:, self.choice, None] if self.pull == "route" else None

    def values(self, view: View) -> Tensor:
        if self.pull == "route":
            trace, graph = trace_of(view), self.graphs[:, self.choice]
            if self.random:
                return replace(trace, open=graph.expand_as(trace.margin)).log_prob
            wanted = (2 * graph - 1) * lead(trace, self.threshold)
            return wanted.amin(-1) if self.worst else hinge(wanted, 1.0).mean(-1)
        logits = self._along(view)
        if self.pull == "error" and not logits.requires_grad:
            return wrong(logits, self.labels).to(logits)
        return ce(logits, self.labels)

    def score(self, view: View, weights: Tensor) -> Tensor:
        return error(View(self._along(view), view.trace), self.labels, weights)

    def twin(self, mean: bool) -> "ThroughGates | None":
        return replace(self, pull="loss") if mean else None

    def variant(self, restart: int) -> "ThroughGates":
        if self.random:
            kinds: tuple[Literal["error", "loss", "route"], ...] = ("error", "loss", "route")
            return replace(self, pull=kinds[restart % 3], choice=restart // 3 % self.graphs.shape[1])
        aims = self.graphs.shape[1]
        return replace(self, pull="route", choice=restart % aims, worst=restart // aims % 2 == 1)

    def _along(self, view: View) -> Tensor:
        """(K, N, classes) logits of the clean images along a view's graphs; differentiable if its decisions are."""
        opened = trace_of(view).open
        draws = len(opened)
        if self.table.shape[1] and not opened.requires_grad:
            index = (
                route_number(layout_of(self.target), opened)
                .transpose(0, 1)[..., None]
                .expand(-1, -1, self.table.shape[2])
            )
            return self.table.gather(1, index).transpose(0, 1)
        seen = self.target.seen(self.clean, list(range(draws)), "select", differentiable=False)
        view = stacked(self.target.model, seen, Forced(opened.flatten(0, 1)), draws)
        self.target.spend(draws, draws if opened.requires_grad else 0)
        return view.logits


@register("gates:through", "a wrong class through the gates alone", paper="this project", aims_at="gates")
@dataclass(frozen=True, kw_only=True)
class Through(GateAttack):
    """Perturbs an image so that the graph it takes misclassifies the *clean* image.

    Hard gates are routed to the misclassifying graphs that the oracle finds, nearest first; sampled gates are pulled
    towards a larger chance of drawing one. Where no graph misclassifies an image, no perturbation can do it through
    the gates.
    """

    AIMS: ClassVar[int] = 3

    def goal(self, target: Target, images: Tensor, labels: Tensor) -> ThroughGates:
        require_decisions(target, self.name)
        seen = target.seen(images, [0], "select", differentiable=False)
        table = images.new_zeros(len(images), 0, 1)
        layout, model = layout_of(target), target.model
        assert is_dynamic(model)
        if layout.count <= LIMIT:
            with torch.no_grad():
                parts = [enumerate_routes(model, part) for part in seen.split(8)]
            table = torch.cat([part.logits for part in parts], 1).transpose(0, 1)
            target.spend(torch.cat([part.work for part in parts]) // layout.running + 1)
        found = oracle(model, seen, labels, self.AIMS, _reach_scale(target, images, self.norm))
        random = target.gating.stochastic
        return ThroughGates(labels, images, target, table, found.graphs, random, target.gating.threshold)


def _reach_scale(target: Target, images: Tensor, norm: str) -> Tensor:
    """(N, L) one over the dual norm of each gate's margin gradient: the budget that a unit of margin costs."""
    columns = []
    layout = layout_of(target)
    # behind an exit there is nothing to differentiate, unless the image is sent on
    policy = Forced(images.new_ones(1, len(layout))) if layout.exits and not layout.routers else None
    for unit in range(len(layout)):

        def one(view: View, unit: int = unit) -> Tensor:
            return trace_of(view).margin[..., unit].mean(0)

        _, gradient, _ = target.gradient(images, one, policy=policy)
        flat = gradient.flatten(1)
        columns.append(1 / (flat.abs().sum(1) if norm == "linf" else flat.norm(dim=1)).clamp_min(1e-12))
    return torch.stack(columns, 1)
