"""PGD-10 with every image attacked to the end: the floor is ten forward+backward passes and one forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.pgd import PGD
from benchmarks import peers
from benchmarks.measure import OURS, Answer, Row, compare
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

STEPS = 10
BUDGET = 8 / 255


@register("pgd-10", "PGD-10 with every image attacked to the end, beside its floor and libraries")
def run(subject: Subject) -> list[Row]:
    """Which images are fooled by the last iterate from the clean image, at 8/255."""
    model, images, labels = subject.model.network, subject.images, subject.labels
    attack = PGD(steps=STEPS, rel_step=peers.REL_STEP, random_start=False, loss="ce", stop=False)

    def floor() -> None:
        for _ in range(STEPS):
            inputs = images.clone().requires_grad_()
            nn.functional.cross_entropy(model(inputs), labels, reduction="sum").backward()
        with torch.no_grad():
            (model(images).argmax(1) != labels).cpu()

    def ours() -> Tensor:
        return subject.fooled(attack(subject.target(), images, labels, [BUDGET]))

    contenders: dict[str, Callable[[], Answer]] = {"floor": floor, OURS: ours}
    contenders |= {
        name: peers.fooled(peer.pgd(STEPS), model, images, labels, [BUDGET]) for name, peer in peers.peers().items()
    }
    case = f"{len(images)} images, 8/255"
    with frozen(model):
        return compare("pgd-10", case, contenders, reference="floor", repeats=subject.repeats, limits={OURS: 1.05})
