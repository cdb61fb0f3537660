"""Pairs of evaluations of the same images, and the epsilon where they differ most."""

from collections.abc import Iterator, Sequence

from robustbench_aig.evaluation.audit.cells import Contestant, Floats, knows, uses_gradient
from robustbench_aig.evaluation.comparisons import compare
from robustbench_aig.evaluation.epsilons import Epsilon
from robustbench_aig.evaluation.plan import AttackLike, Cell
from robustbench_aig.evaluation.statistics import Interval


def strongest_difference(first: Floats, second: Floats, epsilons: Sequence[Epsilon]) -> tuple[Interval, str]:
    """Where the first is most ahead: the paired difference in accuracy, and the label of its epsilon.

    The interval is corrected for the choice of the epsilon (Bonferroni).

    Args:
        first: (E, N) shares of correct draws.
        second: the same of the other.
        epsilons: E budgets.
    """
    number = int((first.mean(1) - second.mean(1)).argmax())
    confidence = 1 - 0.05 / len(epsilons)
    return compare(first[number], second[number], seed=0, confidence=confidence).difference, epsilons[number].label


def partners(contestant: Contestant, other: Contestant) -> Iterator[tuple[Cell, Cell]]:
    """The same gradient attack on both, each by the attacker who knows most of it."""
    for attack in dict.fromkeys(cell.attack for cell in contestant.attacked if uses_gradient(cell)):
        cells = [_informed(side, attack) for side in (contestant, other)]
        if cells[0] is not None and cells[1] is not None and knows(cells[0]) == knows(cells[1]):
            yield cells[0], cells[1]


def _informed(contestant: Contestant, attack: AttackLike | None) -> Cell | None:
    found = [cell for cell in contestant.attacked if cell.attack is attack]
    return next((cell for cell in found if cell.attacker == "adaptive"), found[0] if found else None)
