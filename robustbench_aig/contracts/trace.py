"""The trace of a forward pass: what a network decided for each image, and what that costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from robustbench_aig.contracts.routing import chances, log_choice, route_divergence, route_scores
from robustbench_aig.contracts.units import Layout

TINY = 1e-12
"""Keeps the logarithm of a router's chance finite."""


@dataclass(frozen=True)
class Costs:
    """Multiply-adds (MACs) of one image.

    Attributes:
        floor: what every image costs, whatever is decided.
        units: (L,) float64, what each unit adds where it runs.
    """

    floor: float
    units: Tensor

    def of(self, routes: Tensor) -> Tensor:
        """(…,) float64 MACs of routes (…, L)."""
        return self.floor + routes.detach().double() @ self.units.to(routes.device)

    def extreme(self, layout: Layout, sign: int) -> float:
        """MACs of the dearest (sign 1) or the cheapest (sign -1) route."""
        return float(self.of(layout.most(self.units, sign).double()))


@dataclass(frozen=True)
class Trace:
    """What the decisions were for a batch.

    Attributes:
        margin: (…, N, L), with its autograd graph where gradients are on. A unit runs where its margin is above 0 (or a
            threshold's shift); a router's unit is ahead by so much of the first unit that is not chosen, or behind the
            last that is. 0 where a unit was not reached.
        open: (…, N, L) decisions, 0 or 1 (in [0, 1] under soft policies); 0 where a unit was not reached.
        costs: what the units cost for these images.
        layout: how the decisions hang together.
    """

    margin: Tensor
    open: Tensor
    costs: Costs
    layout: Layout

    @property
    def prob(self) -> Tensor:
        """(…, N, L) the chance of running given that the unit is reached: sigmoid(margin), or :func:`.routing.chances`
        of a router."""
        return self._by_decision(torch.sigmoid, chances)

    @property
    def reached(self) -> Tensor:
        """(…, N, L) bool, whether the unit was asked at all."""
        mask: Tensor = self.layout.reached(self.open)
        return mask

    @property
    def running(self) -> Tensor:
        """(…, N, L) the chance of running given the decisions before: that of :attr:`prob`, 0 where not reached. Over
        draws it has the same mean as :attr:`open`, and less variance."""
        return torch.where(self.reached, self.prob, 0.0) if self.layout.exits else self.prob

    @property
    def log_run(self) -> Tensor:
        """(…, N, L) log of :attr:`prob`."""
        return self._by_decision(logsigmoid, lambda scores, k: chances(scores, k).clamp_min(TINY).log())

    @property
    def log_skip(self) -> Tensor:
        """(…, N, L) log of one minus :attr:`prob`."""
        return self._by_decision(
            lambda margin: logsigmoid(-margin), lambda scores, k: (1 - chances(scores, k)).clamp_min(TINY).log()
        )

    @property
    def log_prob(self) -> Tensor:
        """(…, N) log-probability of the decisions, differentiable through the margins."""
        taken, parts = self.open.detach(), []
        for span, chosen in self.layout.runs:
            margin, bits = self.margin[..., span], taken[..., span]
            if chosen:
                parts.append(log_choice(route_scores(margin, chosen), bits, chosen))
            else:
                parts.append(self._summed(logsigmoid((2 * bits - 1) * margin), span))
        return _sum(parts)

    def divergence(self, other: "Trace") -> Tensor:
        """(…, N) how far sampled decisions diverge from those of another trace along the same route, KL(this || other):
        the sum over the decisions that are reached, whose mean over routes is the divergence of the routes' laws."""
        parts = []
        for span, chosen in self.layout.runs:
            own, others = self.margin[..., span], other.margin[..., span]
            if chosen:
                apart = route_divergence(route_scores(own, chosen), route_scores(others, chosen), chosen)
                parts.append(self._summed(apart[..., None], slice(span.start, span.start + 1)))
                continue
            chance = torch.sigmoid(own)
            run = chance * (logsigmoid(own) - logsigmoid(others))
            parts.append(self._summed(run + (1 - chance) * (logsigmoid(-own) - logsigmoid(-others)), span))
        return _sum(parts)

    def _summed(self, values: Tensor, span: slice) -> Tensor:
        """(…, N) sum of values (…, N, n) of units over those that are reached."""
        return (torch.where(self.reached[..., span], values, 0.0) if self.layout.exits else values).sum(-1)

    @property
    def executed(self) -> Tensor:
        """(…, N, L) bool, whether the unit ran: a soft decision scales it, and only 0 saves it."""
        return self.open != 0

    @property
    def macs(self) -> Tensor:
        """(…, N) float64 multiply-adds that each image's route costs, the part that always runs included."""
        return self.costs.of(self.executed)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Trace":
        """The trace with its tensors changed."""
        return replace(self, margin=change(self.margin), open=change(self.open))

    @classmethod
    def join(cls, traces: "Sequence[Trace]", join: Callable[[list[Tensor]], Tensor]) -> "Trace":
        """One trace of several, their tensors joined by ``join``, such as a concatenation."""
        margin, opened = (join([getattr(trace, name) for trace in traces]) for name in ("margin", "open"))
        return replace(traces[0], margin=margin, open=opened)

    def _by_decision(self, single: Callable[[Tensor], Tensor], router: Callable[[Tensor, int], Tensor]) -> Tensor:
        """(…, N, L) ``single`` of margins, and ``router`` of scores (…, E) and how many of the units are chosen."""
        if not self.layout.routers:
            return single(self.margin)
        parts = []
        for span, chosen in self.layout.runs:
            own = self.margin[..., span]
            parts.append(router(route_scores(own, chosen), chosen) if chosen else single(own))
        return torch.cat(parts, -1)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
