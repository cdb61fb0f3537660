"""PGD-40 with gradients in bfloat16 for four steps of five, beside all of them in float32.

The budget is so small that many images hold out to the last step; elsewhere there is little to save.
"""

from dataclasses import replace

from torch import Tensor

from attacks.pgd import PGD
from benchmarks.measure import OURS, Row, compare
from benchmarks.subject import Subject
from robustbench_aig.contracts.network import frozen
from robustbench_aig.registry import register

BUDGET = 0.5 / 255
FULL = "float32"


@register("bfloat16", "PGD-40 with gradients in bfloat16, beside float32")
def run(subject: Subject) -> list[Row]:
    """Which images are fooled."""
    model, images, labels = subject.model.network, subject.images, subject.labels

    def fooled(half: bool) -> Tensor:
        return subject.fooled(PGD()(replace(subject.target(), half=half), images, labels, [BUDGET]))

    contenders = {OURS: lambda: fooled(True), FULL: lambda: fooled(False)}
    case = f"PGD-40, {len(images)} images, 0.5/255"
    with frozen(model):
        return compare("bfloat16", case, contenders, reference=FULL, repeats=subject.repeats, limits={OURS: 1.0})
