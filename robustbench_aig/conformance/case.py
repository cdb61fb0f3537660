"""What a requirement of the contract is, what its test is given, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import Dynamic, is_dynamic
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Deterministic, Policy
from robustbench_aig.contracts.trace import Trace

T = TypeVar("T")

Verdict = Literal["PASS", "FAIL", "n.a."]

SLACK = 1e-3
"""By how much two passes may differ, as a share of the largest logit: sums in another order differ by less."""


class Broken(Exception):
    """The network failed in a pass; the message says how."""


class NotApplicable(Exception):
    """A test has nothing to look at; the message says why."""


FOLLOW = "let 'traced' decide as its policy says, or derive the network from robustbench_aig.DynamicNetwork"
"""The remedy of a network that does not do what the policy says."""

MULTIPLY = "multiply what a unit gives by its decision, as robustbench_aig.skip does"
"""The remedy of a network that takes decisions of 0 and 1 only."""


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        verdict: of the test.
        measured: what was seen, or why nothing was.
        remedy: what to do about a failure.
    """

    verdict: Verdict
    measured: str
    remedy: str = ""


@dataclass(frozen=True)
class Requirement:
    """One requirement of the contract, and the test of it.

    Attributes:
        title: a few words.
        part: ``plain`` for every network, ``dynamic`` for those that decide.
        function: maps a subject to an outcome.
        remedy: where the network raises an exception.
    """

    title: str
    part: Literal["plain", "dynamic"]
    function: "Function"
    remedy: str


REGISTERED: list[Requirement] = []
"""Every requirement, as the decorators below find them."""


Function = Callable[["Subject"], Outcome]

WORKS = "make the pass work on images of this shape"


def plain(title: str, remedy: str = WORKS) -> Callable[[Function], Function]:
    """Register a requirement on every network."""
    return lambda function: _register(Requirement(title, "plain", function, remedy))


def dynamic(title: str, remedy: str = WORKS) -> Callable[[Function], Function]:
    """Register a requirement on networks that decide."""
    return lambda function: _register(Requirement(title, "dynamic", function, remedy))


def _register(requirement: Requirement) -> Function:
    REGISTERED.append(requirement)
    return requirement.function


def passed(measured: str) -> Outcome:
    """The contract is kept."""
    return Outcome("PASS", measured)


def failed(measured: str, remedy: str) -> Outcome:
    """It is broken, and what to do."""
    return Outcome("FAIL", measured, remedy)


@dataclass(frozen=True)
class Subject:
    """A network under test, and images for it.

    Attributes:
        network: in eval mode.
        images: (N, C, H, W) float32 in [0, 1].
        classes: how many it should have; None where nobody knows.
        seed: of every random draw.
    """

    network: nn.Module
    images: Tensor
    classes: int | None = None
    seed: int = 0

    def call(self, images: Tensor) -> Any:
        """What a plain call of the network returns for a copy of images (n, C, H, W), into which it may write.

        Raises:
            Broken: it raised an exception.
        """
        return guarded(self.network, images.clone())

    def logits(self, images: Tensor) -> Tensor:
        """(n, classes) of a plain call.

        Raises:
            Broken: it raised an exception.
            NotApplicable: it returned something else, which the test of logits says.
        """
        output = self.call(images)
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
            raise NotApplicable("the network does not return logits (N, classes)")
        return output

    def traced(self, images: Tensor, policy: Policy) -> tuple[Tensor, Trace]:
        """Logits (n, classes) and the trace under a policy.

        Raises:
            Broken: the network raised an exception, or returned something else.
        """
        logits, trace = guarded(self.dynamic.traced, images.clone(), policy)
        layout = self.dynamic.layout
        for name, part in (("margin", trace.margin), ("open", trace.open)):
            if part.shape != (len(images), len(layout)):
                raise Broken(f"'traced' gives a trace whose '{name}' is not (N, {len(layout)}) for N images")
        if trace.layout != layout:
            raise Broken("'traced' gives a trace with another layout than the network's")
        if logits.ndim != 2 or len(logits) != len(images):
            raise Broken("'traced' does not give logits (N, classes) for N images")
        return logits, trace

    @property
    def dynamic(self) -> Dynamic:
        """The network, which decides."""
        assert is_dynamic(self.network)
        return self.network

    @cached_property
    def clean(self) -> Tensor:
        """(N, classes) logits of the images."""
        with torch.no_grad():
            return self.logits(self.images)

    @cached_property
    def slack(self) -> float:
        """By how much the logits of two passes may differ."""
        return SLACK * max(1.0, float(self.clean.abs().max()))

    @cached_property
    def steady(self) -> bool:
        """Whether two passes over the images agree in logits and decisions."""
        with torch.no_grad():
            if far(self.logits(self.images), self.clean) > self.slack:
                return False
            return not is_dynamic(self.network) or torch.equal(self.again.open, self.decided[1].open)

    def require_steady(self) -> None:
        """Raises NotApplicable where two passes differ anyway."""
        if not self.steady:
            raise NotApplicable("two passes over the same images differ")

    @cached_property
    def decided(self) -> tuple[Tensor, Trace]:
        """Logits and trace of the images under the usual thresholds."""
        with torch.no_grad():
            return self.traced(self.images, Deterministic())

    @cached_property
    def again(self) -> Trace:
        """The trace of another such pass."""
        with torch.no_grad():
            return self.traced(self.images, Deterministic())[1]

    @cached_property
    def clear(self) -> Tensor:
        """(N,) bool, images none of whose decisions is so close that float rounding may turn it; all of a plain one."""
        if not is_dynamic(self.network):
            return torch.ones(len(self.images), dtype=torch.bool, device=self.images.device)
        trace = self.decided[1]
        lead = trace.margin - trace.layout.shift(None).to(trace.margin)
        close = (lead.abs() < SLACK) & trace.reached
        return ~close.any(-1)

    @property
    def everything(self) -> Tensor:
        """(L,) a route along which as many units run as can."""
        ones = self.images.new_ones(len(self.dynamic.layout))
        return self.dynamic.layout.most(ones, 1)

    def beside(self, route: Tensor) -> Tensor:
        """(F, L) the routes that differ from a route (L,) in one decision, each once."""
        near: Tensor = self.dynamic.layout.neighbours(route).unique(dim=0)
        return near[(near != route).any(-1)]

    def noise(self, draws: int) -> Tensor:
        """(draws, N, L) logistic noise."""
        ids = torch.arange(len(self.images))
        return logistic(self.seed, "score", ids, len(self.dynamic.layout), range(draws)).to(self.images.device)


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors of one shape; inf where one of them is not finite."""
    if not one.numel():
        return 0.0
    return float((one - other).abs().nan_to_num(torch.inf, torch.inf).max())


def guarded(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of the network returns.

    Raises:
        Broken: it raised an exception.
    """
    try:
        return function(*arguments)
    except Exception as error:  # the network is the user's, so it may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise Broken(f"the network raises {type(error).__name__}: {reason.removesuffix('.')}") from error
