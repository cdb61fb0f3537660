"""FGSM over nine epsilons: the floor is one forward+backward pass and one forward pass per epsilon."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.fgsm import FGSM
from benchmarks.measure import OURS, Answer, Row, compare
from benchmarks.peers import Crafting, fooled, peers
from benchmarks.subject import EPSILONS, Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.engine.sweep import DEFAULT_BATCH
from robustbench_aig.registry import register


@register("fgsm", "FGSM over nine epsilons, beside its floor and libraries")
def run(subject: Subject) -> list[Row]:
    """Which images are fooled at each epsilon, in batches of a sweep's size for everybody."""
    model, batches = subject.model.network, list(subject.batches(DEFAULT_BATCH[subject.device.type]))

    def floor() -> None:
        for part in batches:
            inputs = part.images.clone().requires_grad_()
            nn.functional.cross_entropy(model(inputs), part.labels, reduction="sum").backward()
            with torch.no_grad():
                for _ in EPSILONS:
                    (model(part.images).argmax(1) != part.labels).cpu()

    def ours() -> Tensor:
        crafted = [part.fooled(FGSM()(part.target(), part.images, part.labels, EPSILONS)) for part in batches]
        return torch.cat(crafted, 1)

    def theirs(craft: Crafting) -> Callable[[], Answer]:
        answers = [fooled(craft, model, part.images, part.labels, EPSILONS) for part in batches]
        return lambda: torch.cat([answer() for answer in answers], 1)

    contenders: dict[str, Callable[[], Answer]] = {"floor": floor, OURS: ours}
    contenders |= {name: theirs(peer.fgsm) for name, peer in peers().items()}
    case = f"{len(subject.images)} images, {len(EPSILONS)} epsilons"
    with frozen(model):
        return compare("fgsm", case, contenders, reference="floor", repeats=subject.repeats, limits={OURS: 1.05})
