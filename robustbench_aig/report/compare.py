"""Models side by side: the same attack on the same images, with paired statistics."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from robustbench_aig.errors import UserError
from robustbench_aig.report import text
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.statistics.comparisons import at_every, at_some, compare, holm

LEVEL = 0.05
"""Of every statement. Either model may turn out to be the better one, so each direction is tested at half of it."""

SAME = ("dataset", "defense", "attack", "attacker", "norm", "seed")
"""What two curves must share to be compared."""


@dataclass(frozen=True)
class Statement:
    """What may be said about the whole grid of epsilons.

    Attributes:
        sentence: in words.
        scope: ``every`` (each epsilon significant), ``some`` (at least one, after Holm's correction) or ``none``.
        better: the model found more accurate; None if no difference is established.
        p_value: of the statement; None if no difference is established.
        epsilons: labels of the epsilons that it holds at.
    """

    sentence: str
    scope: str
    better: str | None
    p_value: float | None
    epsilons: list[str]


@dataclass(frozen=True)
class Pairing:
    """Two models under one attack.

    Attributes:
        a: the first, named with its run where that is needed.
        b: the second.
        conditions: the values of ``SAME``.
        images: how many images both were scored on; nothing else enters.
        rows: per epsilon ``eps, eps_label, a, b`` (accuracies), ``difference`` (a - b), its 95 % interval ``lo, hi``,
            two-sided ``p_value``, ``p_holm`` (over the epsilons above 0) and ``test``.
        statements: about the epsilons above 0.
    """

    a: str
    b: str
    conditions: dict[str, Any]
    images: int
    rows: pd.DataFrame
    statements: list[Statement]

    def as_json(self) -> dict[str, Any]:
        """The same as plain lists and dictionaries; what does not exist is null."""
        rows = [
            {key: None if pd.isna(value) else value for key, value in row.items()}
            for row in self.rows.to_dict("records")
        ]
        statements = [vars(statement) for statement in self.statements]
        return {
            "a": self.a,
            "b": self.b,
            **self.conditions,
            "images": self.images,
            "rows": rows,
            "statements": statements,
        }


def pairings(runs: Sequence[Run]) -> list[Pairing]:
    """Every pair of models (or gatings, or runs) that met the same attack on the same images.

    Raises:
        UserError: there is no such pair.
    """
    entries = [(run, curve) for run in runs for curve in run.curves]
    groups: dict[tuple[Any, ...], list[tuple[Run, Curve]]] = {}
    for run, curve in entries:
        settings = _settings(run, curve)
        groups.setdefault((*(getattr(curve, name) for name in SAME), settings), []).append((run, curve))
    names = _names(entries)
    found = []
    for key, members in groups.items():
        for (run_a, a), (run_b, b) in combinations(members, 2):
            shares = _common(run_a.shares(a), run_b.shares(b))
            if shares is not None:
                titles = names[run_a.path, a.contestant], names[run_b.path, b.contestant]
                found.append(_pair(titles, dict(zip(SAME, key, strict=False)), a.rows, *shares))
    if not found:
        raise UserError(
            "nothing to compare: no two models met the same attack, attacker, defence, norm, epsilon and seed on the "
            "same images; sweep them with the same options."
        )
    return found


def tables(found: Sequence[Pairing]) -> Iterator[RenderableType]:
    """A table per pair and attack, with what may be said about it below."""
    for pair in found:
        c = pair.conditions
        title = f"{pair.a} against {pair.b}"
        attack = f"{c['attack']} · {c['attacker']} · {text.norm(c['norm'])} · {text.defense(c['defense'])}"
        yield Text.assemble((title, "bold"), f"\n{c['dataset']} · {attack} · seed {c['seed']} · {pair.images:,} images")
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("eps", f"{pair.a}, %", f"{pair.b}, %", "difference, points [95 %]", "p", "p (Holm)"):
            table.add_column(column, justify="left" if column == "eps" else "right")
        for row in pair.rows.to_dict("records"):
            difference = f"{text.points(row['difference'])} [{text.points(row['lo'])}, {text.points(row['hi'])}]"
            adjusted = text.NONE if pd.isna(row["p_holm"]) else text.p_value(row["p_holm"])
            numbers = (
                text.percent(row["a"]),
                text.percent(row["b"]),
                difference,
                text.p_value(row["p_value"]),
                adjusted,
            )
            table.add_row(row["eps_label"], *numbers)
        yield table
        for statement in pair.statements:
            yield Text(f"  {statement.sentence}", "" if statement.better else "dim")
        yield Text()


def _pair(
    names: tuple[str, str], conditions: dict[str, Any], grid: pd.DataFrame, a: pd.DataFrame, b: pd.DataFrame
) -> Pairing:
    eps = grid.set_index("eps_label")["eps"]
    records, forward, backward = [], [], []
    for label in a.index:
        first, second = a.loc[label].to_numpy(), b.loc[label].to_numpy()
        better = compare(first, second, seed=0, alternative="greater")
        worse = compare(second, first, seed=0, alternative="greater")
        difference = better.difference
        records.append(
            {
                "eps": float(eps[label]),
                "eps_label": label,
                "a": float(first.mean()),
                "b": float(second.mean()),
                "difference": difference.value,
                "lo": difference.lo,
                "hi": difference.hi,
                "p_value": min(1.0, 2 * min(better.p_value, worse.p_value)),
                "test": better.test,
            }
        )
        forward.append(better.p_value)
        backward.append(worse.p_value)
    rows = pd.DataFrame(records)
    attacked = (rows["eps"] > 0).to_numpy()
    rows["p_holm"] = np.nan
    rows.loc[attacked, "p_holm"] = holm(rows.loc[attacked, "p_value"].to_numpy())
    labels = list(rows.loc[attacked, "eps_label"])
    one_sided = (np.array(forward)[attacked], np.array(backward)[attacked])
    return Pairing(*names, conditions, a.shape[1], rows, list(_statements(names, labels, one_sided)))


def _statements(
    names: tuple[str, str], labels: list[str], p_values: tuple[npt.NDArray[np.float64], ...]
) -> Iterator[Statement]:
    found = False
    for better, worse, p in zip(names, reversed(names), p_values, strict=True):
        every, some = at_every(p, LEVEL / 2), at_some(p, LEVEL / 2)
        if every.holds:
            found = True
            largest = text.p_value(every.p_value)
            sentence = f"{better} is more accurate than {worse} at every epsilon (largest p {largest})."
            yield Statement(sentence, "every", better, every.p_value, labels)
        elif some.holds:
            found = True
            where = [label for label, holds in zip(labels, some.significant, strict=True) if holds]
            sentence = (
                f"{better} is more accurate than {worse} at some epsilon (Holm): {', '.join(where)}; "
                "not shown at every one."
            )
            yield Statement(sentence, "some", better, some.p_value, where)
    if not found:
        yield Statement(
            f"No difference between {names[0]} and {names[1]} is established at any epsilon.", "none", None, None, []
        )


def _settings(run: Run, curve: Curve) -> str:
    """Every parameter of attack and defence, and the split: their names alone may hide a difference."""
    identities = {cell["id"]: cell["identity"] for cell in run.cells}
    identity = identities[curve.strongest["cell"]]
    return json.dumps([identity["attack"], identity["defense"], identity["dataset"][:2]], sort_keys=True)


def _common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Both tables of shares, cut to the epsilons and images that they share; None if no attacked one is left."""
    labels = [label for label in a.index if label in b.index]
    ids = a.columns.intersection(b.columns)
    if ids.empty or not any(label != "0" for label in labels):
        return None
    return a.loc[labels, ids], b.loc[labels, ids]


def _names(entries: Sequence[tuple[Run, Curve]]) -> dict[tuple[Any, str], str]:
    """A name for each model of each run; the run's is added where two runs hold the same model."""
    holders: dict[str, set[Any]] = {}
    for run, curve in entries:
        holders.setdefault(curve.contestant, set()).add(run.path)
    folders = {run.path: run.name for run, _ in entries}
    if len(set(folders.values())) < len(folders):
        folders = {path: str(path) for path in folders}
    return {
        (run.path, curve.contestant): curve.contestant
        + (f" ({folders[run.path]})" if len(holders[curve.contestant]) > 1 else "")
        for run, curve in entries
    }
