"""How cost grows over images, epsilons, scoring draws and depth, beside growth in proportion.

The ratio of a row is its time over what the first of its case would take if cost grew in proportion: below 1 is work
that is shared.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from attacks.fgsm import FGSM
from attacks.pgd import PGD
from benchmarks.measure import Answer, Row, compare
from benchmarks.subject import EPSILONS, Subject
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen
from robustbench_aig.engine.scoring import score
from robustbench_aig.models.architectures import build
from robustbench_aig.models.macs import full_macs
from robustbench_aig.models.resnet import Trunk
from robustbench_aig.registry import register

DEPTHS = (20, 32, 56, 110)


@register("scaling", "cost over images, epsilons, scoring draws and depth, beside proportional growth")
def run(subject: Subject) -> list[Row]:
    """FGSM over images and epsilons, PGD-40 over epsilons, scoring of sampled gates over draws, passes over depth."""
    half = max(1, len(subject.images) // 4)
    attacked: Mapping[str, tuple[Callable[[int], Callable[[], Answer]], tuple[int, ...]]] = {
        "FGSM at 8/255, images": (lambda n: lambda: _attack(subject, FGSM(), n, 1), (half, 2 * half, 4 * half)),
        "FGSM, epsilons": (lambda n: lambda: _attack(subject, FGSM(), half, n), (1, 3, 9)),
        "PGD-40, epsilons": (lambda n: lambda: _attack(subject, PGD(), half, n), (1, 3, 9)),
        "scoring, draws": (lambda n: lambda: _score(subject, half, n), (1, 5, 20)),
    }
    table = []
    with frozen(subject.model.network), frozen(subject.gated.network):
        for case, (make, sizes) in attacked.items():
            table += _grow(subject, case, {str(n): make(n) for n in sizes}, [n / sizes[0] for n in sizes])
    return table + _depths(subject, half)


def _grow(
    subject: Subject, case: str, contenders: Mapping[str, Callable[[], Answer]], growth: list[float]
) -> list[Row]:
    first = next(iter(contenders))
    found = compare("scaling", case, contenders, reference=first, repeats=subject.repeats)
    return [
        replace(row, ratio=row.ratio / factor, cpu_ratio=None if row.cpu_ratio is None else row.cpu_ratio / factor)
        for row, factor in zip(found, growth, strict=True)
    ]


def _attack(subject: Subject, attack: FGSM | PGD, images: int, epsilons: int) -> Answer:
    """The first ``images`` at evenly spread epsilons up to the largest, or at 8/255."""
    step = len(EPSILONS) // epsilons
    budgets = EPSILONS[step - 1 :: step] if epsilons > 1 else EPSILONS[3:4]
    crafted = attack(subject.target(images), subject.images[:images], subject.labels[:images], budgets)
    subject.fooled(crafted)
    return None


def _score(subject: Subject, images: int, draws: int) -> Answer:
    batch, labels, ids = subject.images[:images], subject.labels[:images], subject.ids[:images]
    gated = subject.gated
    score(gated.network, Gating("stochastic"), NO_DEFENSE, batch, labels, ids, seed=0, draws=draws)
    return None


def _depths(subject: Subject, count: int) -> list[Row]:
    """Forward+backward passes of fresh networks; growth is that of their multiply-adds."""
    images = subject.images[:count]
    contenders: dict[str, Callable[[], Answer]] = {}
    sizes = []
    for depth in DEPTHS:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            trained = build(f"resnet{depth}", classes=10, channels=images.shape[1]).eval()
        assert isinstance(trained, Trunk)
        network = trained.fused().requires_grad_(False)
        network = network.to(subject.device).to(memory_format=torch.channels_last)
        sizes.append(full_macs(network, tuple(images.shape[1:])))

        def passes(network: Trunk = network) -> Answer:
            inputs = images.clone().requires_grad_()
            network(inputs).logsumexp(1).sum().backward()
            return None

        contenders[f"depth {depth}"] = passes
    growth = [size / sizes[0] for size in sizes]
    return _grow(subject, "forward+backward, depth by multiply-adds", contenders, growth)
