"""From what became of a cell's images to the files of the cell."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.forward import Draws, shown
from robustbench_aig.contracts.network import costs_of, is_dynamic
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.engine.columns import FLAGS, Row, budget, names, samples, summary
from robustbench_aig.engine.outcomes import Outcome, Spent, worst
from robustbench_aig.engine.plan import Cell
from robustbench_aig.gates import execution
from robustbench_aig.gates.measures import Change, Clean, measures

CLEAN = Epsilon(Fraction(0))
"""The budget of a clean row."""


def results(
    cell: Cell, clean: Scores, paths: Mapping[str, Outcome], spent: Spent
) -> tuple[dict[str, Any], dict[str, pa.Table | pd.DataFrame]]:
    """What goes into the files of a cell.

    Args:
        cell: the cell.
        clean: scores of its clean images.
        paths: by the name of each path of its attacker, what that did; none of a clean cell.
        spent: passes of the attack.

    Returns:
        the values of ``result.json``, and the tables by name.
    """
    judged: dict[str, Outcome] = {cell.attacker: worst(paths) if paths else Outcome.stack([Outcome.untouched(clean)])}
    if len(paths) > 1:
        judged |= {f"{cell.attacker}/{name}": outcome for name, outcome in paths.items()}
    rows = [
        Row(cell, attacker, epsilon, clean, outcome.at(number), spent)
        for attacker, outcome in judged.items()
        for number, epsilon in enumerate(cell.epsilons or (CLEAN,))
    ]
    own = [row for row in rows if row.attacker == cell.attacker]
    result: dict[str, Any] = {"rows": [summary(row) for row in rows]}
    tables = {"samples": samples(own)}
    if cell.attack is not None:
        result |= {"eot": cell.gradient_draws, "measures": [FLAGS.values(row) for row in own]}
        if cell.model.layout is not None:
            tables |= {"execution": _execution(own), "gates": _gates(rows)}
    return result, tables


def _execution(rows: Sequence[Row]) -> pd.DataFrame:
    """``execution.csv``: a row per epsilon, group of images and unit."""
    data = rows[0].cell.dataset
    masks = execution.groups(data.labels.numpy(), data.classes, data.categories)
    tables = [execution.table(row.clean, row.scores, masks, row.layout) for row in rows]
    return pd.concat(map(_named, rows, tables), ignore_index=True).drop(columns="eps_label")


def _gates(rows: Sequence[Row]) -> pd.DataFrame:
    """``gates.csv``: a row per attacker, epsilon and measure."""
    cell = rows[0].cell
    assert is_dynamic(cell.model.network)
    # A defence may enlarge what the model sees, and with it floor and ceiling.
    draws = Draws(cell.seed, "score", cell.dataset.ids[:1], [0])
    seen = shown(cell.defense, cell.dataset.images(torch.arange(1)), draws)
    costs, labels = costs_of(cell.model.network, tuple(seen.shape[1:])), cell.dataset.labels.numpy()
    clean = Clean(rows[0].clean, labels, len(cell.dataset.classes), costs, rows[0].layout, cell.seed)
    tables = []
    for row in rows:
        found = measures(Change(clean, row.scores, row.outcome.crossed)).items()
        values = [{"measure": name, **value._asdict(), "cell": cell.id} for name, value in found]
        tables.append(_named(row, pd.DataFrame(values)))
    return pd.concat(tables, ignore_index=True)


def _named(row: Row, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns before it that name the row of the summary which it is about."""
    keys = {**names(row), **budget(row), "seed": row.cell.seed}
    del keys["dataset"]
    return pd.DataFrame(keys, index=table.index).join(table)
