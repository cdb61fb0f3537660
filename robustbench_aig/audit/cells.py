"""Cells as checks see them: who is attacked, and how much an attack is entitled to."""

from dataclasses import dataclass

import numpy as np

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
    return cell.attack is not None and cell.attack.name in ("none", "identity")


def telling(cell: Cell, correct: Floats) -> int:
    """The number of the epsilon whose accuracy is nearest to a half: where a change of strength shows best."""
    return int(np.abs(correct.mean(1) - 0.5).argmin())
