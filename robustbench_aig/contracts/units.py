"""What a dynamic network decides: switches, exits and routers, and how they hang together.

A network lists its decisions in the order in which it makes them. Each stands for one unit or several, which run or do
not; a route says for all L units of a network which of them run for an image.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Switch:
    """One unit that runs or is skipped; the others do not depend on it (ConvNet-AIG, SkipNet)."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The unit's name."""
        return (self.name,)


@dataclass(frozen=True)
class Exit:
    """A point where an image may leave. Its unit is all that follows up to the next exit, and runs for images that go
    on; what lies behind the exit that an image takes is not reached by it (BranchyNet, Shallow-Deep Networks)."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The unit's name."""
        return (self.name,)


@dataclass(frozen=True)
class Router:
    """A choice of ``chosen`` units out of several (mixture of experts)."""

    names: tuple[str, ...]
    chosen: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.chosen < len(self.names):
            raise ValueError(
                f"a router chooses 1 to {len(self.names) - 1} of {len(self.names)} units, not {self.chosen}"
            )


Decision = Switch | Exit | Router

USUAL_CONFIDENCE = 0.9
"""What is enough at an exit unless a threshold says otherwise; a switch's probability must pass one half (Eq. 12)."""


@dataclass(frozen=True)
class Layout:
    """The decisions of a network in order, and what follows for its L units.

    Attributes:
        decisions: D of them; no two units have the same name.

    Raises:
        ValueError: something else is given, or a name is taken twice.
    """

    decisions: tuple[Decision, ...]

    def __post_init__(self) -> None:
        for decision in self.decisions:
            if not isinstance(decision, Decision):
                raise ValueError(f"a decision is a Switch, an Exit or a Router, not {decision!r}")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"each unit needs a name of its own, and '{twice[0]}' is taken twice")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each unit, (L,)."""
        return tuple(name for decision in self.decisions for name in decision.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """The units of each decision, (D,)."""
        ends = np.cumsum([len(decision.names) for decision in self.decisions]).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @cached_property
    def switches_only(self) -> bool:
        """Whether every decision is a switch, so that all 2^L routes exist and every unit is always reached."""
        return all(isinstance(decision, Switch) for decision in self.decisions)

    @cached_property
    def exits(self) -> tuple[int, ...]:
        """Numbers of the units behind exits."""
        return tuple(
            span.start for span, decision in zip(self.spans, self.decisions, strict=True) if isinstance(decision, Exit)
        )

    @cached_property
    def routers(self) -> tuple[tuple[slice, int], ...]:
        """The units of each router, and how many of them it chooses."""
        return tuple(
            (span, decision.chosen)
            for span, decision in zip(self.spans, self.decisions, strict=True)
            if isinstance(decision, Router)
        )

    @cached_property
    def runs(self) -> tuple[tuple[slice, int], ...]:
        """The units in order: those of each router, with how many of them it chooses, and those between, with 0."""
        runs, start = [], 0
        for span, chosen in (*self.routers, (slice(len(self), len(self)), 0)):
            if span.start > start:
                runs.append((slice(start, span.start), 0))
            if chosen:
                runs.append((span, chosen))
            start = span.stop
        return tuple(runs)

    @cached_property
    def running(self) -> int:
        """How many units a pass runs at most."""
        return len(self) - sum(int(span.stop - span.start) - chosen for span, chosen in self.routers)

    @cached_property
    def count(self) -> int:
        """How many routes there are: switches double them, an exit adds one, a router has its combinations."""
        routes = 1
        for decision in reversed(self.decisions):
            match decision:
                case Switch():
                    routes *= 2
                case Exit():
                    routes += 1
                case Router(names, chosen):
                    routes *= math.comb(len(names), chosen)
        return routes

    def routes(self) -> Tensor:
        """(count, L) float32, every route once; units that are not reached are 0. With switches alone, row number g
        holds the bits of g, unit 0 the lowest."""
        if self.switches_only:
            return (torch.arange(self.count)[:, None] >> torch.arange(len(self)) & 1).float()
        return torch.tensor(list(self._routes(0)), dtype=torch.float32)

    def _routes(self, number: int) -> Iterator[tuple[int, ...]]:
        if number == len(self.decisions):
            yield ()
            return
        decision, rest = self.decisions[number], len(self) - self.spans[number].stop
        match decision:
            case Exit():
                yield (0,) * (1 + rest)
                yield from ((1, *tail) for tail in self._routes(number + 1))
            case Switch():
                yield from ((bit, *tail) for tail in self._routes(number + 1) for bit in (0, 1))
            case Router(names, chosen):
                for tail in self._routes(number + 1):
                    for choice in combinations(range(len(names)), chosen):
                        yield (*(int(expert in choice) for expert in range(len(names))), *tail)

    def middle(self) -> Tensor:
        """(L,) one route that runs some units and leaves others out."""
        route = (torch.arange(len(self)) % 2).float()
        for span, chosen in self.routers:
            route[span] = (torch.arange(span.stop - span.start) < chosen).float()
        for unit in self.exits:
            route[unit] = 1.0
        return route

    def refusal(self, route: Sequence[int]) -> str | None:
        """Why no image can take a route of L bits, in a few words; None if one can.

        A route that goes on past an exit it has taken means the one that ends there and is not refused.
        """
        if len(route) != len(self):
            return f"it has {len(route)} digits, and the network {len(self)} units"
        for span, decision in zip(self.spans, self.decisions, strict=True):
            if isinstance(decision, Exit) and not route[span.start]:
                return None
            if isinstance(decision, Router) and sum(route[span]) != decision.chosen:
                return f"the router of {self.names[span.start]} chooses {decision.chosen}, not {sum(route[span])}"
        return None

    def reached(self, open_: Any) -> Any:
        """(…, L) bool: whether each unit was asked at all, for decisions (…, L); an array or tensor as given."""
        mask = open_ == open_
        for unit in self.exits:
            mask[..., unit + 1 :] &= open_[..., unit : unit + 1] != 0
        return mask

    def changes(
        self, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """How far two routes differ at each decision.

        Args:
            before: decisions (…, L).
            after: likewise.

        Returns:
            (…, D) float64: 0 or 1 for a switch or an exit, the share of exchanged units for a router; and (…, D) bool,
            whether both images reached the decision. What one of them did not reach says nothing.
        """
        differ = before != after
        if self.switches_only:
            return differ.astype(np.float64), np.ones(differ.shape, bool)
        both = self.reached(before) & self.reached(after)
        starts = [span.start for span in self.spans]
        moved = np.add.reduceat(differ, starts, -1, dtype=np.float64)
        sizes = np.array([2 * d.chosen if isinstance(d, Router) else 1 for d in self.decisions], np.float64)
        return moved / sizes * both[..., starts], both[..., starts]

    def unit_changes(self, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(…, L) bool: units that both routes (…, L) reached and one of them ran."""
        differ = before != after
        seen: npt.NDArray[np.bool_] = self.reached(before) & self.reached(after)
        changed: npt.NDArray[np.bool_] = differ & seen
        return changed

    def opposite(self, often: Tensor, margin: Tensor) -> Tensor:
        """(…, L) the route that decides otherwise everywhere: of a router, the likeliest units that were not chosen.

        Args:
            often: (…, L) how often each unit ran.
            margin: (…, L) its margins.
        """
        wanted = (often <= 0.5).to(margin)
        for span, chosen in self.routers:
            taken = often[..., span].topk(chosen, -1).indices
            left = margin[..., span].scatter(-1, taken, -torch.inf).topk(chosen, -1).indices
            wanted[..., span] = torch.zeros_like(wanted[..., span]).scatter(-1, left, 1.0)
        return self.settled(wanted)

    def neighbours(self, routes: Tensor) -> Tensor:
        """(…, F, L) the routes in which one decision is another, for routes (…, L): a switch or an exit the other way,
        a router with one unit exchanged. Where an exchange is not possible, the route stays as it is. Behind an exit
        that is no longer taken, switches are closed, the next exit is taken, and routers choose their first units."""
        found = []
        for span, decision in zip(self.spans, self.decisions, strict=True):
            if not isinstance(decision, Router):
                other = routes.clone()
                other[..., span] = 1 - other[..., span]
                found.append(other)
                continue
            for gone in range(span.start, span.stop):
                for come in range(span.start, span.stop):
                    if gone != come:
                        other = routes.clone()
                        move = (routes[..., gone] > 0.5) & (routes[..., come] < 0.5)
                        other[..., gone] = torch.where(move, 0.0, routes[..., gone])
                        other[..., come] = torch.where(move, 1.0, routes[..., come])
                        found.append(other)
        return self.settled(torch.stack(found, -2))

    def settled(self, routes: Tensor) -> Tensor:
        """(…, L) the routes that images take which are sent along routes (…, L): nothing runs behind an exit that is
        taken, and a router that is to choose nothing chooses its first units."""
        routes = routes.clone()
        for span, chosen in self.routers:
            first = (torch.arange(span.stop - span.start, device=routes.device) < chosen).to(routes)
            empty = (routes[..., span] == 0).all(-1, keepdim=True)
            routes[..., span] = torch.where(empty, first, routes[..., span])
        route: Tensor = routes * self.reached(routes)
        return route

    def most(self, costs: Tensor, sign: int) -> Tensor:
        """(L,) the route of most (sign 1) or fewest (sign -1) multiply-adds, for the costs of the units (L,); 0 where a
        unit is not reached."""
        wanted = torch.full_like(costs, float(sign > 0))
        for span, chosen in self.routers:
            best = (sign * costs[span]).topk(chosen).indices
            wanted[span] = torch.zeros_like(costs[span]).scatter(0, best, 1.0)
        return self.settled(wanted)

    def shift(self, threshold: float | None) -> Tensor:
        """(L,) what the margin of a unit must exceed under a threshold T: logit(T) for a switch, whose probability must
        pass it; logit(1 - T) for an exit, which is taken once its confidence reaches T; 0 for a router's unit. None is
        the usual threshold: 0.5 for switches, :data:`USUAL_CONFIDENCE` for exits."""
        own = {Switch: switch_level(threshold), Exit: exit_level(threshold), Router: 0.0}
        return torch.tensor([own[type(decision)] for decision in self.decisions for _ in decision.names])


def switch_level(threshold: float | None) -> float:
    """The margin that a switch must exceed under a threshold; None is one half."""
    return 0.0 if threshold is None else _logit(threshold)


def exit_level(threshold: float | None) -> float:
    """The margin that an image must exceed to go on past an exit; None is :data:`USUAL_CONFIDENCE`."""
    return -_logit(USUAL_CONFIDENCE if threshold is None else threshold)


@cache
def _logit(probability: float) -> float:
    return torch.logit(torch.tensor(probability, dtype=torch.float64)).item()
