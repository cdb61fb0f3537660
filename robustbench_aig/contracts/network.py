"""The contract of dynamic networks: networks that decide for each image what to run.

A network of your own derives from :class:`DynamicNetwork`: it lists its decisions and asks for each of them in its
forward pass. Both gatings, all measures and all attacks on decisions then work on it. :class:`Stepwise` is for networks
that are a chain of steps: they also share the work of routes that begin alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar, cast, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robustbench_aig.contracts.policy import Deterministic, Forced, Policy, Stochastic
from robustbench_aig.contracts.routing import route_margin
from robustbench_aig.contracts.trace import Costs, Trace
from robustbench_aig.contracts.units import Decision, Exit, Layout, Router, Switch

State = Tensor | tuple[Tensor, ...]
"""What a network knows of its images between two decisions: tensors that have the images first."""

S = TypeVar("S", bound=State)


@runtime_checkable
class Dynamic(Protocol):
    """What the rest of the suite asks of a dynamic network; :class:`DynamicNetwork` is one way to have it."""

    layout: Layout

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, Trace]: ...
    def costs(self, image_shape: tuple[int, ...]) -> Costs: ...


PARTS = ("layout", "traced", "costs")


def is_dynamic(network: object) -> TypeGuard[Dynamic]:
    """Whether a network keeps the contract."""
    return all(hasattr(network, part) for part in PARTS)


class Asked:
    """The decisions of one forward pass: the network asks, the policy answers, and both are remembered.

    Args:
        policy: decides.
        layout: the decisions that the network said it would ask for.
    """

    def __init__(self, policy: Policy, layout: Layout) -> None:
        self.policy, self.layout = policy, layout
        self._number = 0
        self._margins: list[Tensor] = []
        self._decided: list[Tensor] = []
        self._rows: Tensor | None = None
        self._logits: Tensor | None = None
        self._weight: Tensor | None = None

    def switch(self, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) whether the next unit runs, for its margins (n,) or (n, 1): bool where the network may skip it.

        Args:
            margin: log-odds of running, above 0 for "run".
            rows: (n,) which images of the batch these are; None for those that have not left by :meth:`exit`.

        Raises:
            ValueError: the next decision of the layout is no switch, or there is not one margin for each image.
        """
        span, rows = self._next(Switch), self._rows if rows is None else rows
        flat = self._column(margin, rows)
        decision = self.policy.switch(span.start, flat, rows)
        self._note(flat[:, None], decision[:, None], rows)
        return decision

    def exit(self, logits: Tensor, state: S, confidence: Tensor | None = None) -> S:
        """Let the images that are confident enough leave at the next exit.

        What :meth:`DynamicNetwork.run` returns in the end is needed for the remaining images only, and it is not
        continued once all have left. Where decisions are soft or carry a gradient, every image goes on, and the logits
        of all exits are added up by the chance of leaving there.

        Args:
            logits: (n, classes) the answer of the images that leave here.
            state: what the network goes on with: a tensor (n, …), or a tuple of them.
            confidence: (n,) log-odds of leaving; None for :func:`log_odds` of the logits.

        Returns:
            The state of the images that go on, (m, …).

        Raises:
            ValueError: as in :meth:`leave`.
        """
        going = self.leave(log_odds(logits) if confidence is None else confidence)
        rows, weight = self._rows, self._weight
        if going.dtype != torch.bool:
            weight = torch.ones_like(going) if weight is None else weight
            self._answer(logits, rows, weight * (1 - going))
            self._weight = weight * going
            return state
        gone, kept = (~going).nonzero()[:, 0], going.nonzero()[:, 0]
        if not len(gone):
            return state
        rows = torch.arange(len(going), device=going.device) if rows is None else rows
        self._answer(logits[gone], rows[gone], None if weight is None else weight[gone])
        self._rows, self._weight = rows[kept], None if weight is None else weight[kept]
        if not len(kept):
            raise _AllLeft
        return cast(S, take(state, kept))

    def leave(self, confidence: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) whether images go on past the next exit.

        Args:
            confidence: (n,) log-odds of the exit's confidence, ``logit(p)``; :func:`log_odds` gives them for logits.
            rows: as in :meth:`switch`.

        Raises:
            ValueError: the next decision of the layout is no exit, or there is not one confidence for each image.
        """
        span, rows = self._next(Exit), self._rows if rows is None else rows
        margin = -self._column(confidence, rows)
        decision = self.policy.leave(span.start, margin, rows)
        self._note(margin[:, None], decision[:, None], rows)
        return decision

    def route(self, scores: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n, E) which units of the next router run, for scores (n, E); arguments as in :meth:`switch`.

        Raises:
            ValueError: the next decision of the layout is no router of so many units, or there are not scores for each
                image.
        """
        span, rows = self._next(Router), self._rows if rows is None else rows
        router = self.layout.decisions[self._number - 1]
        assert isinstance(router, Router)
        self._check(scores, (len(router.names),), rows)
        decision = self.policy.route(span.start, scores, router.chosen, rows)
        self._note(route_margin(scores, router.chosen), decision, rows)
        return decision

    def trace(self, costs: Costs) -> Trace:
        """What was asked and answered; units that no image reached are 0.

        Raises:
            ValueError: a decision was not asked for although an image reaches it.
        """
        if self._number < len(self.layout.decisions):
            ended = self._number and isinstance(self.layout.decisions[self._number - 1], Exit)
            if not ended or bool(self._decided[-1].any()):
                name = self.layout.decisions[self._number].names[0]
                total = len(self.layout.decisions)
                raise ValueError(f"the network asks for {self._number} of its {total} decisions; '{name}' is the next")
            missing = len(self.layout) - sum(part.shape[1] for part in self._margins)
            none = self._margins[0].new_zeros(len(self._margins[0]), missing)
            self._margins.append(none)
            self._decided.append(none)
        margin = torch.cat(self._margins, 1)
        opened = torch.cat(self._decided, 1).to(margin.dtype)
        if self.layout.exits:  # where decisions carry a gradient, images that have left are run on
            reached = self.layout.reached(opened)
            margin, opened = (torch.where(reached, part, 0.0) for part in (margin, opened))
        return Trace(margin, opened, costs, self.layout)

    def follow(self, network: "DynamicNetwork", images: Tensor) -> Tensor:
        """(N, classes) what the network answers on images (N, C, H, W), whether they leave early or not."""
        try:
            logits = network.run(images, self)
        except _AllLeft:
            pass
        else:
            self._answer(logits, self._rows, self._weight)
        assert self._logits is not None
        return self._logits

    def _answer(self, logits: Tensor, rows: Tensor | None, weight: Tensor | None) -> None:
        """Add up what is answered, logits (n, classes) by their weights (n,), for the images ``rows`` (n,)."""
        part = logits if weight is None else weight[:, None] * logits
        if rows is None:
            self._logits = part if self._logits is None else self._logits + part
            return
        total = part.new_zeros(len(self._margins[0]), part.shape[1]) if self._logits is None else self._logits
        self._logits = total.index_add(0, rows, part)

    def _next(self, kind: type) -> slice:
        number = self._number
        if number >= len(self.layout.decisions):
            raise ValueError(f"the network asks for more than its {len(self.layout.decisions)} decisions")
        decision = self.layout.decisions[number]
        if not isinstance(decision, kind):
            wanted = type(decision).__name__
            raise ValueError(f"'{decision.names[0]}' is declared as {wanted}, and asked for as {kind.__name__}")
        self._number += 1
        return self.layout.spans[number]

    def _column(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """(n,) values that are (n,) or (n, 1)."""
        flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        self._check(flat, (), rows)
        return flat

    def _check(self, values: Tensor, shape: tuple[int, ...], rows: Tensor | None) -> None:
        """Refuse values that are not (n, *shape), for the n images ``rows``."""
        count = len(rows) if rows is not None else len(self._margins[0]) if self._margins else None
        fits = values.ndim > 0 and values.shape[1:] == shape
        if fits and count in (None, len(values)):
            return
        name = self.layout.decisions[self._number - 1].names[0]
        if fits:
            raise ValueError(f"'{name}' is asked for {len(values)} images, and {count} reach it")
        got, wanted = (", ".join(("n", *map(str, sizes))) for sizes in (values.shape[1:], shape))
        raise ValueError(
            f"'{name}' is asked for with values ({got if values.ndim else ''}) for n images, not ({wanted})"
        )

    def _note(self, margin: Tensor, decision: Tensor, rows: Tensor | None) -> None:
        if rows is not None:
            count = len(self._margins[0])
            margin, decision = _spread(margin, rows, count), _spread(decision.to(margin.dtype), rows, count)
        self._margins.append(margin)
        self._decided.append(decision)


class _AllLeft(Exception):
    """Ends a forward pass in which no image goes on."""


def _spread(part: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count, …) zeros with ``part`` (n, …) at ``rows``."""
    return part.new_zeros(count, *part.shape[1:]).index_copy(0, rows, part)


def log_odds(logits: Tensor) -> Tensor:
    """(n,) logit of the largest class probability, for logits (n, classes): the confidence of an exit."""
    best, at = logits.max(-1)
    others = logits.scatter(-1, at[:, None], -torch.inf).logsumexp(-1)
    return best - others


class Lesson(NamedTuple):
    """What a training step learns from.

    Attributes:
        logits: (M, N, classes); the mean of their M cross-entropies is the loss, and the last are the answer.
        opened: (N, L) decisions that are held against a target rate (Eq. 10); None where there is no such target.
        extra: () a further loss, such as one that balances experts; None without.
    """

    logits: Tensor
    opened: Tensor | None = None
    extra: Tensor | None = None


class DynamicNetwork(nn.Module, ABC):
    """A network that decides for each image what to run.

    A plain call follows :attr:`policy`; :meth:`traced` takes the policy as an argument and also returns the trace.

    Attributes:
        layout: the decisions in the order in which :meth:`run` asks for them.
        policy: of plain calls.
        recorder: receives the trace of plain calls inside :func:`gating`.
    """

    layout: Layout

    def __init__(self, decisions: tuple[Decision, ...]) -> None:
        super().__init__()
        self.layout = Layout(tuple(decisions))
        self.policy: Policy = Deterministic()
        self.recorder: Recorder | None = None

    @abstractmethod
    def run(self, images: Tensor, ask: Asked) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1].

        Args:
            images: the batch.
            ask: ``ask.switch(margin)`` and ``ask.route(scores)`` give the decisions, and ``x = ask.exit(logits, x)``
                the images that go on; from there, all that is asked and returned is about these.
        """

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """Multiply-adds of one image of shape (C, H, W): by default counted, so units must be skipped to be free."""
        return counted(self, image_shape)

    def forward(self, images: Tensor) -> Tensor:
        logits, trace = self.traced(images, self.policy)
        if self.recorder is not None:
            self.recorder.trace = trace
        return logits

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, Trace]:
        """Logits (N, classes) and the trace of images (N, C, H, W) in [0, 1] under ``policy``."""
        ask = Asked(policy, self.layout)
        logits = ask.follow(self, images)
        return logits, ask.trace(costs_of(self, tuple(images.shape[1:])))

    def taught(self, images: Tensor, policy: Policy) -> Lesson:
        """What training learns from images (N, C, H, W) in [0, 1]: by default the logits, and switches against their
        target rate."""
        logits, trace = self.traced(images, policy)
        return Lesson(logits[None], trace.open if self.layout.switches_only else None)

    def fused(self) -> "DynamicNetwork":
        """A network for inference that computes the same, such as one with its BatchNorm folded; by default itself."""
        return self


class Stepwise(DynamicNetwork):
    """A dynamic network as a chain of steps, one for each decision.

    From its five parts follow the forward pass with images that leave at exits, many draws at the cost of their
    distinct beginnings (:meth:`sampled`), and enumeration (:mod:`robustbench_aig.contracts.enumeration`).
    """

    @abstractmethod
    def begin(self, images: Tensor) -> State:
        """The state before the first decision, of images (N, C, H, W) in [0, 1]."""

    @abstractmethod
    def score(self, number: int, state: State) -> Tensor:
        """What decision ``number`` rests on: margins (n,) of a switch, log-odds of confidence (n,) of an exit, scores
        (n, E) of a router."""

    @abstractmethod
    def advance(self, number: int, state: State, decision: Tensor) -> State:
        """The state behind decision ``number``, taken as (n,) or (n, E); a bool decision allows skipping. Behind an
        exit it is called only for images that go on, with decisions that are all true."""

    @abstractmethod
    def answer(self, state: State) -> Tensor:
        """Logits (n, classes) of a state: at an exit, or behind the last decision."""

    def run(self, images: Tensor, ask: Asked) -> Tensor:
        state = self.begin(images)
        for number, decision in enumerate(self.layout.decisions):
            score = self.score(number, state)
            match decision:
                case Switch():
                    taken = ask.switch(score)
                case Router():
                    taken = ask.route(score)
                case Exit():
                    state = ask.exit(self.answer(state), state, score)
                    taken = _all(state)
            state = self.advance(number, state, taken)
        return self.answer(state)

    @torch.no_grad()
    def sampled(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Trace]:
        """Many draws of the stochastic decisions at the cost of the distinct paths among them.

        Draws of an image that have decided alike so far share one state, so each step runs once per image and distinct
        beginning of a route.

        Args:
            images: (N, C, H, W) in [0, 1].
            noise: (S, N, L) logistic noise.

        Returns:
            Logits (S, N, classes) and a trace of shape (S, N, L): what :meth:`traced` gives draw by draw, up to the
            order of float sums.
        """
        at_once = PATHS_AT_ONCE.get(images.device.type)
        size = len(images) if at_once is None else max(1, at_once // len(noise))
        found = [self._sampled(part, own) for part, own in zip(images.split(size), noise.split(size, 1), strict=True)]
        if len(found) == 1:
            return found[0]
        logits = torch.cat([part for part, _ in found], 1)
        return logits, Trace.join([trace for _, trace in found], lambda parts: torch.cat(parts, 1))

    def _sampled(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Trace]:
        draws, count = noise.shape[:2]
        ask = Asked(Stochastic(noise.flatten(0, 1), "none"), self.layout)
        state = self.begin(images)
        path = torch.arange(count, device=images.device).repeat(draws)
        rows: Tensor | None = None
        ended: list[tuple[Tensor, Tensor]] = []
        for number, decision in enumerate(self.layout.decisions):
            score = self.score(number, state)[path]
            match decision:
                case Switch():
                    taken, width = ask.switch(score, rows), 1
                case Router(names):
                    taken, width = ask.route(score, rows), len(names)
                case Exit():
                    taken, width = ask.leave(score, rows), 1
                    rows = torch.arange(len(path), device=path.device) if rows is None else rows
                    states, back = torch.unique(path[~taken], return_inverse=True)
                    ended.append((rows[~taken], self.answer(take(state, states))[back]))
                    rows, path, taken = rows[taken], path[taken], taken[taken]
                    if not len(rows):
                        break
            pairs, path = torch.unique((path << width) + _code(taken), return_inverse=True)
            state = self.advance(number, take(state, pairs >> width), _decode(pairs, decision))
        else:
            ended.append((path if rows is None else rows, self.answer(state)[path]))
        logits = ended[0][1]
        if self.layout.exits:
            rows, logits = (torch.cat(parts) for parts in zip(*ended, strict=True))
            logits = torch.empty_like(logits).index_copy_(0, rows, logits)
        trace = ask.trace(costs_of(self, tuple(images.shape[1:])))
        return logits.view(draws, count, -1), trace.map(lambda part: part.view(draws, count, -1))


PATHS_AT_ONCE = {"cpu": 640}
"""Images times draws that are sampled together: more only leave the caches (250 images of ten draws took 6 to 50 %
longer in one go, by what else the machine did); on other devices there is no limit but the batch."""


def _code(taken: Tensor) -> Tensor:
    """(n,) int64 that names the decisions (n,) or (n, E)."""
    if taken.ndim == 1:
        return taken.long()
    return taken.long() @ (1 << torch.arange(taken.shape[1], device=taken.device))


def _decode(code: Tensor, decision: Decision) -> Tensor:
    """The reverse of :func:`_code`; higher bits are ignored."""
    if not isinstance(decision, Router):
        return (code & 1).bool()
    return (code[:, None] >> torch.arange(len(decision.names), device=code.device) & 1).bool()


def _all(state: State) -> Tensor:
    """(n,) true for every image of a state."""
    part = state[0] if isinstance(state, tuple) else state
    return torch.ones(len(part), dtype=torch.bool, device=part.device)


def take(state: State, rows: Tensor) -> State:
    """A state of the images ``rows`` alone, in the memory format that it has."""
    if isinstance(state, tuple):
        return tuple(_take(part, rows) for part in state)
    return _take(state, rows)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.index_select(0, rows)
    return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def added(x: Tensor, rows: Tensor, branch: Tensor) -> Tensor:
    """``x`` (N, C, H, W) with ``branch`` (n, C, H, W) added to its ``rows`` (n,); in place where no gradient is wanted.

    Indexing is slow unless an image is one run of memory (20 times for index_add on a CPU), hence the views.
    """
    order, back = (0, 2, 3, 1), (0, 3, 1, 2)
    if not x.is_contiguous(memory_format=torch.channels_last):
        order = back = (0, 1, 2, 3)
    view, addend = x.permute(order), branch.permute(order)
    if x.requires_grad or branch.requires_grad:
        return view.index_add(0, rows, addend).permute(back)
    view.index_add_(0, rows, addend)
    return x


def skip(block: Callable[[Tensor], Tensor], x: Tensor, decision: Tensor) -> Tensor:
    """``decision * block(x)``, running ``block`` only for the images that need it where decisions are bool.

    Args:
        block: maps (n, …) to (n, …).
        x: (N, …).
        decision: (N,) from :meth:`Asked.switch`, or one column of :meth:`Asked.route`.
    """
    if decision.dtype != torch.bool:
        out = block(x)
        return out * decision.to(out.dtype).view(-1, *(1,) * (out.ndim - 1))
    rows = decision.nonzero()[:, 0]
    if len(rows) == len(x):
        return block(x)
    part = block(_take(x, rows))
    return part.new_zeros(len(x), *part.shape[1:]).index_copy(0, rows, part)


_KNOWN: WeakKeyDictionary[Any, dict[tuple[int, ...], Costs]] = WeakKeyDictionary()


def costs_of(network: Dynamic, image_shape: tuple[int, ...]) -> Costs:
    """What the units of a network cost for images of shape (C, H, W); remembered per network."""
    known = _KNOWN.setdefault(network, {})
    if image_shape not in known:
        known[image_shape] = network.costs(image_shape)
    return known[image_shape]


def counted(network: DynamicNetwork, image_shape: tuple[int, ...]) -> Costs:
    """Multiply-adds by running one image along forced routes and counting: each unit is what it adds to those before.

    A router is made to choose none of its units, then one, two and so on up to all of them.
    """
    layout = network.layout
    parameter = next(network.parameters(), torch.zeros(0))
    image = torch.zeros((1, *image_shape), device=parameter.device, dtype=parameter.dtype)
    routes = torch.tril(torch.ones(len(layout) + 1, len(layout)), -1).to(parameter.device)
    macs = []
    with frozen(network):
        for route in routes:
            ask = Asked(Forced(route[None]), layout)
            macs.append(multiply_adds(partial(ask.follow, network), image)[1])
    return Costs(macs[0], torch.tensor(macs, dtype=torch.float64).diff())


def multiply_adds(part: Callable[[Tensor], Any], x: Tensor) -> tuple[Any, float]:
    """What a part of a network returns for ``x``, and the multiply-adds that it takes; one multiply-add counts once."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        out = part(x)
    return out, counter.get_total_flops() / 2


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; each module's and parameter's own setting is restored after."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for module, _ in modes:
        module.training = False
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextmanager
def training_flag(model: nn.Module) -> Iterator[None]:
    """The training flag on inside, as attack libraries switch it, for all modules but normalisation and dropout, which
    have business with it."""
    ordinary = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    modes = [(module, module.training) for module in model.modules() if not isinstance(module, ordinary)]
    for module, _ in modes:
        module.training = True
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass
class Recorder:
    """Holds the trace of the last plain call made inside :func:`gating`."""

    trace: Trace | None = field(default=None)


@contextmanager
def gating(model: DynamicNetwork, policy: Policy) -> Iterator[Recorder]:
    """Use ``policy`` for every plain ``model(images)`` call inside the block; yields the recorder of the last trace."""
    before = model.policy, model.recorder
    model.policy, model.recorder = policy, Recorder()
    try:
        yield model.recorder
    finally:
        model.policy, model.recorder = before


def run(model: nn.Module, images: Tensor, policy: Policy | None) -> tuple[Tensor, Trace | None]:
    """Logits (N, classes), and the trace where ``policy`` is given (a dynamic network)."""
    if policy is None:
        logits: Tensor = model(images)
        return logits, None
    assert is_dynamic(model)
    return model.traced(images, policy)


@torch.no_grad()
def sampled(network: Dynamic, images: Tensor, noise: Tensor) -> tuple[Tensor, Trace]:
    """Logits (S, N, classes) and the trace (S, N, L) of S draws under logistic noise (S, N, L), at the lowest cost that
    the network offers."""
    if isinstance(network, Stepwise):
        return network.sampled(images, noise)
    found = [network.traced(images, Stochastic(draw, "none")) for draw in noise]
    return torch.stack([logits for logits, _ in found]), Trace.join([trace for _, trace in found], torch.stack)
