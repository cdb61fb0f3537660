"""PGD-40 over nine epsilons: one call that carries successes to larger budgets, beside nine runs."""

from dataclasses import replace

import torch
from torch import Tensor

from attacks.pgd import PGD
from benchmarks.measure import OURS, Row, compare
from benchmarks.peers import REL_STEP, fooled, peers
from benchmarks.subject import EPSILONS, Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

STEPS = 40
NINE = "nine runs to the end"


@register("pgd-sweep", "PGD-40 over nine epsilons, beside nine runs of it")
def run(subject: Subject) -> list[Row]:
    """Which images are fooled at each epsilon; ratios are to nine runs that attack every image to the end."""
    model, images, labels = subject.model.network, subject.images, subject.labels
    carrying = PGD(steps=STEPS, rel_step=REL_STEP, random_start=False, loss="ce")
    alone, textbook = replace(carrying, carry=False), replace(carrying, stop=False)

    def one_by_one(attack: PGD) -> Tensor:
        crafted = [attack(subject.target(), images, labels, [budget]) for budget in EPSILONS]
        return subject.fooled(torch.cat(crafted))

    def ours() -> Tensor:
        return subject.fooled(carrying(subject.target(), images, labels, EPSILONS))

    contenders = {OURS: ours, "nine runs, leaving early": lambda: one_by_one(alone), NINE: lambda: one_by_one(textbook)}
    contenders |= {
        f"{name}, nine runs": fooled(peer.pgd(STEPS), model, images, labels, EPSILONS)
        for name, peer in peers().items()
        if name != "ART"
    }
    case = f"{len(images)} images, {len(EPSILONS)} epsilons"
    with frozen(model):
        return compare("pgd-sweep", case, contenders, reference=NINE, repeats=subject.repeats, limits={OURS: 0.2})
