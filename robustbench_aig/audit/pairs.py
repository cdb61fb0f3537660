"""Pairs of evaluations of the same images, and the epsilon where they differ most."""

from collections.abc import Iterator

from robustbench_aig.audit.cells import Contestant, knows, uses_gradient
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.engine.plan import Cell


def partners(contestant: Contestant, other: Contestant) -> Iterator[tuple[Cell, Cell]]:
    """The same gradient attack on both, each by the attacker who knows most of it."""
    for attack in dict.fromkeys(cell.attack for cell in contestant.attacked if uses_gradient(cell)):
        cells = [_informed(side, attack) for side in (contestant, other)]
        if cells[0] is not None and cells[1] is not None and knows(cells[0]) == knows(cells[1]):
            yield cells[0], cells[1]


def _informed(contestant: Contestant, attack: Attack | None) -> Cell | None:
    found = [cell for cell in contestant.attacked if cell.attack is attack]
    return next((cell for cell in found if cell.attacker == "adaptive"), found[0] if found else None)
