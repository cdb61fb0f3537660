"""FGSM over nine epsilons: the floor is one forward+backward pass and one forward pass per epsilon."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.benchmarks.measure import OURS, Answer, Row, compare
from attacks.benchmarks.peers import fooled, peers
from attacks.benchmarks.subject import EPSILONS, Subject
from attacks.fgsm import FGSM
from robustbench_aig.evaluation.target import frozen


def run(subject: Subject) -> list[Row]:
    """Which images are fooled at each epsilon."""
    model, images, labels = subject.model.network, subject.images, subject.labels

    def floor() -> None:
        inputs = images.clone().requires_grad_()
        nn.functional.cross_entropy(model(inputs), labels, reduction="sum").backward()
        with torch.no_grad():
            for _ in EPSILONS:
                (model(images).argmax(1) != labels).cpu()

    def ours() -> Tensor:
        return subject.fooled(FGSM()(subject.target(), images, labels, EPSILONS))

    contenders: dict[str, Callable[[], Answer]] = {"floor": floor, OURS: ours}
    contenders |= {name: fooled(peer.fgsm, model, images, labels, EPSILONS) for name, peer in peers().items()}
    case = f"{len(images)} images, {len(EPSILONS)} epsilons"
    with frozen(model):
        return compare("fgsm", case, contenders, reference="floor", repeats=subject.repeats, limits={OURS: 1.05})
