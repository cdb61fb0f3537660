"""What a network that decides must ask: for every decision that it declares, with log-odds and scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustbench_aig.conformance.case import Outcome, Subject, dynamic, failed, passed
from robustbench_aig.contracts.policy import Forced

ASK = "in 'run', ask for every decision once, in the order of the list given to 'super().__init__'"

SQUASHING = {"Sigmoid": "sigmoid", "Softmax": "softmax"}

MOVING = (
    "Amax",
    "Clone",
    "Index",
    "Max",
    "Neg",
    "Reshape",
    "Select",
    "Slice",
    "Squeeze",
    "ToCopy",
    "View",
    "UnsafeView",
)
"""Operations that autograd may record between a probability and the decision that is asked with it."""


@dynamic("decisions asked", ASK)
def asked(subject: Subject) -> Outcome:
    """With as many units running as can, the network asks for every decision, with finite numbers."""
    layout = subject.dynamic.layout
    with torch.no_grad():
        trace = subject.traced(subject.images, Forced(subject.everything[None]))[1]
    wild = ~trace.margin.isfinite().all(0)
    if wild.any():
        name = layout.names[int(wild.nonzero()[0])]
        return failed(f"the margin of '{name}' is NaN or infinite", "look for log, a division or infinity before it")
    count = len(layout.decisions)
    names = layout.names if len(layout) < 5 else (*layout.names[:3], "…", layout.names[-1])
    return passed(f"{count} decision{'s' * (count > 1)}, units {', '.join(names)}")


@dynamic("log-odds", ASK)
def log_odds(subject: Subject) -> Outcome:
    """Decisions are asked with log-odds and scores, not with the output of a sigmoid or a softmax."""
    layout = subject.dynamic.layout
    policy = _Heard(subject.everything[None])
    images = subject.images[:1].clone().requires_grad_()
    with torch.enable_grad():
        subject.traced(images, policy)
    for decision, values in zip(layout.decisions, policy.asked, strict=False):
        for name in _behind(values.grad_fn):
            if name in SQUASHING:
                return failed(
                    f"'{decision.names[0]}' is asked with the output of a {SQUASHING[name]}, which is never below 0",
                    "ask with what goes into it; where there is only a probability p, with torch.logit(p)",
                )
    if not policy.asked:
        return passed("the policy is not asked, and the trace says what is decided")
    low, high = (float(value) for value in torch.cat([values.detach().flatten() for values in policy.asked]).aminmax())
    return passed(f"decisions are asked with numbers from {low:.2g} to {high:.2g}")


@dataclass(frozen=True)
class _Heard(Forced):
    """Forces a route, and keeps what was asked with."""

    asked: list[Tensor] = field(default_factory=list)

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        self.asked.append(margin)
        return super().switch(unit, margin, rows)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        self.asked.append(scores)
        return super().route(unit, scores, chosen, rows)


def _behind(node: Any) -> Iterator[str]:
    """Names of the operations that a tensor comes from, up to the first that does more than to move values."""
    while node is not None:
        name = node.name().partition("Backward")[0]
        yield name
        if name not in MOVING:
            return
        node = node.next_functions[0][0]
