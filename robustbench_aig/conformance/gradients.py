"""What a network that decides must let through: gradients, and decisions between 0 and 1."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustbench_aig.conformance.case import (
    FOLLOW,
    MULTIPLY,
    SLACK,
    Broken,
    NotApplicable,
    Outcome,
    Subject,
    dynamic,
    failed,
    far,
    passed,
)
from robustbench_aig.contracts.policy import Expected, Forced, Policy

FEW = 4
"""Images that are differentiated."""


@dynamic("skipping and scaling")
def skipping(subject: Subject) -> Outcome:
    """Decisions of 0 and 1 that carry a gradient give the same logits as those that allow skipping, and autograd leads
    from the logits to every one of them."""
    subject.require_steady()
    layout, images = subject.dynamic.layout, subject.images[:FEW]
    for route in (subject.everything, layout.middle().to(images)):
        policy = _Leaves(route[None])
        with torch.no_grad():
            skipped, _ = subject.traced(images, Forced(route[None]))
        try:
            with torch.enable_grad():
                scaled, _ = subject.traced(images, policy)
        except Broken as error:
            return failed(f"given decisions that carry a gradient, {error}", MULTIPLY)
        apart = far(skipped, scaled.detach())
        if apart > subject.slack:
            return failed(f"skipping units and multiplying them by 0 differ by {apart:.2g}", MULTIPLY)
        found: tuple[Tensor | None, ...] = (None,)
        if policy.leaves and scaled.requires_grad:
            found = torch.autograd.grad(scaled.sum(), policy.leaves, allow_unused=True)
        for decision, reached in zip(layout.decisions, found, strict=False):
            if reached is None:
                return failed(f"no gradient goes from the logits to the decision on '{decision.names[0]}'", MULTIPLY)
    return passed("both give the same logits, and a gradient leads from them to every decision")


@dynamic("gradient of margins")
def margins(subject: Subject) -> Outcome:
    """A finite gradient goes from every margin to the images."""
    layout = subject.dynamic.layout
    images = subject.images[:FEW].clone().requires_grad_()
    with torch.enable_grad():
        margin = subject.traced(images, Forced(subject.everything[None]))[1].margin
    lost = []
    for unit, name in enumerate(layout.names):
        found: Tensor | None = None
        if margin.requires_grad:
            (found,) = torch.autograd.grad(margin[:, unit].sum(), images, retain_graph=True, allow_unused=True)
        if found is not None and not found.isfinite().all():
            return failed(
                f"the gradient of the margin of '{name}' is NaN or infinite", "look for sqrt, log or a division"
            )
        if found is None or not found.any():
            lost.append(name)
    if lost:
        rest = f", nor do {len(lost) - 1} others" if lost[1:] else ""
        symptom = f"the margin of '{lost[0]}' has no gradient with respect to the images{rest}"
        return failed(symptom, "leave out detach, no_grad and rounding before the decision")
    return passed(f"it goes from all {len(layout)} margins to the images")


@dynamic("expected gating", MULTIPLY)
def expected(subject: Subject) -> Outcome:
    """Where every unit runs and is scaled by its chance, decisions are these chances and logits are finite."""
    try:
        with torch.no_grad():
            logits, trace = subject.traced(subject.images, Expected())
    except Broken as error:
        if isinstance(error.__cause__, NotImplementedError):
            raise NotApplicable(f"the network refuses it: {error.__cause__}") from None
        raise
    if not logits.isfinite().all():
        return failed("logits are NaN or infinite where units are scaled by their chances", MULTIPLY)
    if far(trace.open, trace.prob * trace.reached) > SLACK:
        return failed("decisions are not the chances of running", FOLLOW)
    return passed(f"it runs; units are scaled by {trace.open.mean():.2f} in the mean")


@dataclass(frozen=True)
class _Leaves(Policy):
    """Forces a route (1, L) by decisions that are leaves of the autograd graph, and keeps them."""

    bits: Tensor
    leaves: list[Tensor] = field(default_factory=list)

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return self._leaf(self.bits[:, unit], margin)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        return self._leaf(self.bits[:, unit : unit + scores.shape[1]], scores)

    def _leaf(self, bits: Tensor, like: Tensor) -> Tensor:
        self.leaves.append(bits.expand_as(like).clone().requires_grad_())
        return self.leaves[-1]
