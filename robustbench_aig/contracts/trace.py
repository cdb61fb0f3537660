"""The trace of a forward pass: what a network decided for each image, and what that costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from robustbench_aig.contracts.units import Layout

TINY = 1e-12
"""Keeps the logarithm of a chance finite."""


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
        chance: (…, N, L) probability of running given that the unit is reached; None where that is sigmoid(margin).
    """

    margin: Tensor
    open: Tensor
    costs: Costs
    layout: Layout
    chance: Tensor | None = None

    @property
    def prob(self) -> Tensor:
        """(…, N, L) the chance of running given that the unit is reached."""
        return torch.sigmoid(self.margin) if self.chance is None else self.chance

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
        return logsigmoid(self.margin) if self.chance is None else self.chance.clamp_min(TINY).log()

    @property
    def log_skip(self) -> Tensor:
        """(…, N, L) log of one minus :attr:`prob`."""
        return logsigmoid(-self.margin) if self.chance is None else (1 - self.chance).clamp_min(TINY).log()

    @property
    def log_prob(self) -> Tensor:
        """(…, N) log-probability of the decisions, differentiable through the margins.

        Of a router with several chosen units it is that of drawing each with replacement.
        """
        taken = self.open.detach()
        if self.layout.switches_only:
            return logsigmoid((2 * taken - 1) * self.margin).sum(-1)
        skipped = 1 - taken
        for span, _ in self.layout.routers:
            skipped = skipped.index_fill(-1, torch.arange(span.start, span.stop, device=taken.device), 0.0)
        return torch.where(self.reached, taken * self.log_run + skipped * self.log_skip, 0.0).sum(-1)

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
        chance = None if self.chance is None else change(self.chance)
        return replace(self, margin=change(self.margin), open=change(self.open), chance=chance)

    @classmethod
    def join(cls, traces: "Sequence[Trace]", join: Callable[[list[Tensor]], Tensor]) -> "Trace":
        """One trace of several, their tensors joined by ``join``, such as a concatenation."""
        first = traces[0]
        chances = [trace.chance for trace in traces if trace.chance is not None]
        return replace(
            first,
            margin=join([trace.margin for trace in traces]),
            open=join([trace.open for trace in traces]),
            chance=join(chances) if chances else None,
        )
