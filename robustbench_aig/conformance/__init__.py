"""Whether a network keeps the contract of this suite: one requirement, one decorated function.

``robustbench-aig check`` prints what these find.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from robustbench_aig.conformance import asking, costs, decisions, gradients, plain
from robustbench_aig.conformance.case import (
    REGISTERED,
    Broken,
    NotApplicable,
    Outcome,
    Requirement,
    Subject,
    Verdict,
)
from robustbench_aig.contracts.network import is_dynamic

__all__ = ["REQUIREMENTS", "Finding", "Outcome", "Requirement", "Subject", "examine"]

_ORDER = [module.__name__ for module in (asking, plain, decisions, gradients, costs)]

REQUIREMENTS: tuple[Requirement, ...] = tuple(sorted(REGISTERED, key=lambda own: _ORDER.index(own.function.__module__)))
"""All of them, in the order in which they are tested."""


@dataclass(frozen=True)
class Finding:
    """What a test found.

    Attributes:
        part: ``plain`` or ``dynamic``.
        test: title of the requirement.
        verdict: of the test.
        measured: what was seen, or why nothing was.
        remedy: what to do about a failure; empty otherwise.
    """

    part: Literal["plain", "dynamic"]
    test: str
    verdict: Verdict
    measured: str
    remedy: str


def examine(network: nn.Module, images: Tensor, classes: int | None = None, seed: int = 0) -> Iterator[Finding]:
    """Test a network, one requirement after the other; the dynamic part is for networks that decide.

    A failure in a pass is told once, by the first test that meets it.

    Args:
        network: in eval mode.
        images: (N, C, H, W) float32 in [0, 1], two or more, on the network's device.
        classes: how many the network should have; None where nobody knows.
        seed: of every random draw.
    """
    subject = Subject(network, images, classes, seed)
    told: dict[str, str] = {}
    for requirement in REQUIREMENTS:
        if requirement.part == "plain" or is_dynamic(network):
            outcome = _tested(requirement, subject, told)
            yield Finding(requirement.part, requirement.title, outcome.verdict, outcome.measured, outcome.remedy)


def _tested(requirement: Requirement, subject: Subject, told: dict[str, str]) -> Outcome:
    try:
        return requirement.function(subject)
    except NotApplicable as reason:
        return Outcome("n.a.", str(reason))
    except Broken as error:
        symptom = str(error)
        if symptom in told:
            return Outcome("n.a.", f"the network fails as in '{told[symptom]}'")
        told[symptom] = requirement.title
        return Outcome("FAIL", symptom, requirement.remedy)
