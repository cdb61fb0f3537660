"""Cells as checks see them: who is attacked, and how much an attack is entitled to."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.engine.plan import Cell
from robustbench_aig.statistics.intervals import Floats


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model with its gating behind a defence, and the finished cells of the same seed.

    Attributes:
        clean: its cell without an attack.
        attacked: the attacks on it that the threat model allows.
        oracles: those of attackers who know more.
    """

    clean: Cell
    attacked: tuple[Cell, ...]
    oracles: tuple[Cell, ...] = ()

    @property
    def random(self) -> bool:
        """Whether two draws can differ."""
        return self.clean.stochastic

    @property
    def at_class(self) -> tuple[Cell, ...]:
        """The attacks whose success is a wrong class: only their accuracies say something about robustness."""
        return tuple(filter(aims_at_class, self.attacked))

    @property
    def by_gradient(self) -> tuple[Cell, ...]:
        """The gradient attacks among :attr:`at_class`."""
        return tuple(filter(uses_gradient, self.at_class))


def knows(cell: Cell) -> bool:
    """Whether the cell's attacker differentiates what is scored: it must then obey the rules of a sound attack."""
    return cell.attacker == "adaptive" or not (cell.stochastic or defended(cell))


def oracle(cell: Cell) -> bool:
    """Whether the cell's attacker knows what no threat model grants: the numbers of the scoring draws."""
    return cell.attacker == "known-noise"


def defended(cell: Cell) -> bool:
    """Whether a defence stands before the model."""
    return not cell.defense.nothing


def uses_gradient(cell: Cell) -> bool:
    """Whether the cell's attack is a gradient attack."""
    return cell.attack is not None and cell.attack.needs_gradient


def is_control(cell: Cell) -> bool:
    """Whether the cell's attack is meant to do nothing."""
    return cell.attack is not None and cell.attack.aims_at == "nothing"


def aims_at_class(cell: Cell) -> bool:
    """Whether the cell's attack wants a wrong class."""
    return cell.attack is not None and cell.attack.aims_at == "class"


def telling(cell: Cell, correct: Floats) -> int:
    """The number of the epsilon whose accuracy is nearest to a half: where a change of strength shows best."""
    return int(np.abs(correct.mean(1) - 0.5).argmin())


def partners(contestant: Contestant, other: Contestant) -> Iterator[tuple[Cell, Cell]]:
    """The same gradient attack on both, each by the attacker who knows most of it."""
    for attack in dict.fromkeys(cell.attack for cell in contestant.by_gradient):
        cells = [_informed(side, attack) for side in (contestant, other)]
        if cells[0] is not None and cells[1] is not None and knows(cells[0]) == knows(cells[1]):
            yield cells[0], cells[1]


def _informed(contestant: Contestant, attack: Attack | None) -> Cell | None:
    found = [cell for cell in contestant.attacked if cell.attack is attack]
    return next((cell for cell in found if cell.attacker == "adaptive"), found[0] if found else None)
