"""A gradient averaged over 20 gate draws, beside 20 forward+backward passes over the same total batch."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.common.losses import Criterion
from benchmarks.measure import OURS, Row, compare
from benchmarks.subject import Subject
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen, is_dynamic
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.policy import Stochastic
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.registry import register

DRAWS = 20
IMAGES = 12
"""As many as a sweep's batch of 250 leaves to each of 20 draws."""


@register("eot", "a gradient over 20 gate draws, beside 20 passes")
def run(subject: Subject) -> list[Row]:
    """The sign of the mean gradient of the cross-entropy."""
    network = subject.gated.network
    assert is_dynamic(network)
    images, labels, ids = subject.images[:IMAGES], subject.labels[:IMAGES], subject.ids[:IMAGES]
    rows = torch.arange(len(images), device=subject.device)
    target = Target(network, Gating("stochastic"), ids, rows, Passes.none(len(images), subject.device), 0)
    noise = logistic(0, "craft", ids, len(network.layout), range(DRAWS)).to(subject.device)

    def passes() -> Tensor:
        total = torch.zeros_like(images)
        for draw in noise:
            inputs = images.clone().requires_grad_()
            logits, _ = network.traced(inputs, Stochastic(draw))
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels, reduction="sum"), inputs)
            total += gradient
        return total.sign().cpu()

    def ours() -> Tensor:
        _, gradient, _ = replace(target, draws=DRAWS).gradient(images, Criterion(labels).objective("ce"))
        return gradient.sign().cpu()

    case = f"{len(images)} images x {DRAWS} draws"
    contenders = {f"{DRAWS} passes": passes, OURS: ours}
    with frozen(network):
        return compare(
            "eot", case, contenders, reference=f"{DRAWS} passes", repeats=2 * subject.repeats, limits={OURS: 1.05}
        )
