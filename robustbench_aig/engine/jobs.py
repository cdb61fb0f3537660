"""Jobs: cells that are computed together, because one crafting serves them all."""

import json
from collections.abc import Sequence

from robustbench_aig.engine.attackers import transfers
from robustbench_aig.engine.plan import Cell

Job = tuple[Cell, ...]
"""Cells that differ only in a defence that their attacker does not know; any of them says what he does."""


def jobs(cells: Sequence[Cell]) -> list[Job]:
    """Every cell in one job, in the order of the first cell of each."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_crafting(cell), []).append(cell)
    return list(map(tuple, groups.values()))


def _crafting(cell: Cell) -> str:
    """All that the crafted images depend on: the identity, less the scoring draws and a defence that is not known.

    An iterated attack stops where the bare model is fooled, unless its images are for another; then it runs apart.
    """
    known = {name: value for name, value in cell.identity.items() if name != "draws"}
    if cell.attacker in ("static", "none"):
        known["defense"] = cell.attack is not None and cell.attack.iterated and transfers(cell)
    return json.dumps([cell.model.name, known], sort_keys=True)
