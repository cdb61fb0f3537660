"""What closed gates save: gated inference beside the plain network of the same depth, both without BatchNorm.

The gates' own decisions are thresholded where the images' mean execution rate is the wanted one. The limit is the share
of multiply-adds that is executed, gating units included in the whole, times 1.15.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import OURS, Row, compare
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.policy import Deterministic, Policy
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.registry import register

RATES = (0.5, 0.7, 0.9)
BATCHES = (64, 256)
"""Images per pass."""

FACTOR = 1.15
"""How far the time may exceed the share of multiply-adds."""

PLAIN = "plain network"


@register("skipping", "gated inference at rates .5, .7, .9, beside the plain network")
def run(subject: Subject) -> list[Row]:
    """Classes that skipping finds, compared with those that multiplying by the decisions finds."""
    network = subject.gated.network
    assert isinstance(network, ConvNetAIG)
    table = []
    with frozen(network), torch.no_grad():
        for size in BATCHES:
            images = subject.images[:512]
            batches = [part.contiguous(memory_format=torch.channels_last) for part in images.split(size)]
            batches = [part for part in batches if len(part) == size]
            for rate in RATES if batches else ():
                policy = _threshold(network, batches, rate)
                trace = network.traced(torch.cat(batches), policy)[1]
                share = trace.macs.mean().item() / trace.costs.extreme(trace.layout, 1)
                contenders = {
                    PLAIN: partial(_plain, network, batches),
                    OURS: partial(_classes, network, batches, policy),
                }
                found = compare(
                    "skipping",
                    f"batch {size}, rate {rate}",
                    contenders,
                    reference=PLAIN,
                    repeats=subject.repeats,
                    limits={OURS: FACTOR * share},
                    notes={OURS: f"{share:.3f} of the multiply-adds; limit {FACTOR} x that"},
                )
                same = (_classes(network, batches, policy) == _multiplied(network, batches, policy)).float().mean()
                table += [replace(row, same=same.item() if row.contender == OURS else None) for row in found]
    return table


def _plain(network: ConvNetAIG, batches: Sequence[Tensor]) -> Tensor:
    return torch.cat([network.trunk(part).argmax(1) for part in batches])


def _classes(network: ConvNetAIG, batches: Sequence[Tensor], policy: Deterministic) -> Tensor:
    return torch.cat([network.traced(part, policy)[0].argmax(1) for part in batches])


def _multiplied(network: ConvNetAIG, batches: Sequence[Tensor], policy: Deterministic) -> Tensor:
    """The same without skipping: every branch runs and is multiplied by its decision."""
    multiplying = _Multiplying(policy)
    return torch.cat([network.traced(part, multiplying)[0].argmax(1) for part in batches])


@dataclass(frozen=True)
class _Multiplying(Policy):
    """Decides as another policy, in numbers that do not say that units can be skipped."""

    policy: Policy

    def switch(self, unit: int, margin: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.policy.switch(unit, margin, rows).to(margin.dtype)

    def route(self, unit: int, scores: Tensor, chosen: int, rows: Tensor | None = None) -> Tensor:
        return self.policy.route(unit, scores, chosen, rows).to(scores.dtype)


def _threshold(network: ConvNetAIG, batches: Sequence[Tensor], rate: float) -> Deterministic:
    """Thresholded gates of a mean execution rate, by bisection."""
    images = torch.cat(list(batches))
    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        executed = network.traced(images, Deterministic(middle))[1].open.mean().item()
        low, high = (middle, high) if executed > rate else (low, middle)
    return Deterministic((low + high) / 2)
