"""The real JPEG-75 codec, beside a PGD step that it is part of."""

import torch
from torch import Tensor

from attacks.pgd import PGD
from benchmarks.measure import Row, compare
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

STEPS = 4
IMAGES = 250


@register("jpeg", "JPEG-75, beside a PGD step")
def run(subject: Subject) -> list[Row]:
    """As many round trips as PGD has steps, in batches of a sweep's size; ratios are to the undefended steps."""
    images, labels = subject.images[:IMAGES], subject.labels[:IMAGES]
    attack = PGD(steps=STEPS, stop=False)

    def steps() -> Tensor:
        return attack(subject.target(len(images)), images, labels, [8 / 255]).cpu()

    def codec() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                subject.codec(images)

    case = f"{len(images)} images, {STEPS} steps"
    contenders = {"PGD steps": steps, "JPEG round trips": codec}
    codec_name = str(subject.codec.record().get("codec"))
    with frozen(subject.model.network):
        return compare(
            "jpeg",
            case,
            contenders,
            reference="PGD steps",
            repeats=subject.repeats,
            limits={"JPEG round trips": 0.1},
            notes={"JPEG round trips": codec_name},
        )
