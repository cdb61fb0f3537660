"""``auto`` beside the members of AutoAttack from torchattacks, in AutoAttack's order and with its standard steps.

torchattacks' own AutoAttack stops after ten steps, so its members are put together here with 100.
"""

import warnings
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from attacks.auto import Auto
from attacks.libraries import torchattacks
from benchmarks.measure import OURS, Row, measure, rows
from benchmarks.peers import fooled
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

STEPS = 100
QUERIES = 5000
BUDGETS = {"8/255": (8 / 255, 512), "1/255": (1 / 255, 512), "0.5/255": (0.5 / 255, 64)}
"""Epsilons with how many images: few, where so many hold out that running all members takes long."""

PEER = "torchattacks"


@register("auto", "auto beside torchattacks' AutoAttack with 100 steps, on 128 images")
def run(subject: Subject) -> list[Row]:
    """Which images are broken at 8/255, and at smaller budgets, where some hold out to the last member.

    torchattacks' FAB takes no channels-last images, so its members get contiguous ones.
    """
    model = subject.model.network
    classes = len(subject.dataset.classes)
    attack = Auto(steps=STEPS, queries=QUERIES)
    table = []
    with frozen(model), warnings.catch_warnings():
        torchattacks.quiet()
        for label, (budget, count) in BUDGETS.items():
            images, labels = subject.images[:count], subject.labels[:count]

            def ours(images: Tensor = images, labels: Tensor = labels, budget: float = budget) -> Tensor:
                return subject.fooled(attack(subject.target(len(images)), images, labels, [budget]))

            theirs = fooled(partial(_members, classes), model, images.contiguous(), labels, [budget])
            contenders = {OURS: ours, PEER: theirs}
            seen = measure(contenders, repeats=min(subject.repeats, 3))
            broken = {name: f"{int(one.answer.sum())} broken" for name, one in seen.items() if one.answer is not None}
            table += rows("auto", f"{len(images)} images, {label}", seen, PEER, {OURS: 0.5}, broken)
    return table


def _members(classes: int, model: nn.Module, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> list[Tensor]:
    library = torchattacks.load()
    found = []
    for budget in budgets:
        own = {"eps": budget, "norm": "Linf"}
        members = [
            library.APGD(model, steps=STEPS, loss="ce", **own),
            library.APGDT(model, steps=STEPS, n_classes=classes, **own),
            library.FAB(model, steps=STEPS, multi_targeted=True, n_classes=classes, **own),
            library.Square(model, n_queries=QUERIES, **own),
        ]
        found.append(library.MultiAttack(members)(images, labels))
    return found
