"""Robust accuracy under PGD-40 at 8/255: decided images leave here, and go on to the last step in other libraries."""

from torch import Tensor

from attacks.pgd import PGD
from benchmarks.measure import OURS, Row, compare
from benchmarks.peers import REL_STEP, fooled, peers
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

STEPS = 40
BUDGET = 8 / 255


@register("pgd-40", "robust accuracy under PGD-40 at 8/255, beside libraries")
def run(subject: Subject) -> list[Row]:
    """Which images are fooled from the clean image; ratios are to torchattacks."""
    model, images, labels = subject.model.network, subject.images, subject.labels
    attack = PGD(steps=STEPS, rel_step=REL_STEP, random_start=False, loss="ce")

    def ours() -> Tensor:
        return subject.fooled(attack(subject.target(), images, labels, [BUDGET]))

    contenders = {OURS: ours}
    contenders |= {name: fooled(peer.pgd(STEPS), model, images, labels, [BUDGET]) for name, peer in peers().items()}
    case = f"{len(images)} images, 8/255"
    with frozen(model):
        return compare(
            "pgd-40", case, contenders, reference="torchattacks", repeats=subject.repeats, limits={OURS: 0.2}
        )
