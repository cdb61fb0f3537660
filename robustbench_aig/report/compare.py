"""Two evaluations of the same images side by side, image by image: models under one attack, or attacks on one model."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from robustbench_aig.contracts.columns import Unit
from robustbench_aig.errors import UsageError, UserError, unknown
from robustbench_aig.gates.mediation import CROSSED_DRAWS
from robustbench_aig.report import text
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.report.tables import Shown, Table
from robustbench_aig.statistics.comparisons import compare, holm

_ENDS = ("difference", "lo", "hi")
LEVEL = 0.05
"""Of every statement. Either of the two may be ahead, so each direction is tested at half of it."""

MODELS = ("dataset", "defense", "attack", "attacker", "norm", "seed")
"""What the curves of two models must share."""

ATTACKS = ("model", "dataset", "gating", "defense", "attacker", "norm", "seed")
"""What the curves of two attacks must share."""


MEASURES: dict[str, tuple[str, Unit]] = {
    "accuracy": ("correct", "share"),
    "macs": ("macs_adv", "macs"),
    "executed": ("open_adv", "share"),
    "flips": ("flips", "share"),
    "kept": ("graph_kept", "share"),
    "features": ("correct_features", "share"),
    "gates": ("correct_gates", "share"),
}
"""Numbers that every attacked image has, as columns of ``samples.parquet`` and how they are written: ``accuracy``;
multiply-adds (``macs``); the share of units that run (``executed``), that decide otherwise than on the clean image
(``flips``); how often a whole graph is as it was (``kept``); accuracy where the attacked image lends only its
``features``, or only its decisions (``gates``)."""


@dataclass(frozen=True)
class Pair:
    """Two evaluations.

    Attributes:
        a: the first: a model, named with its run where that is needed, or an attack.
        b: the second.
        conditions: what the two share.
        measure: a key of :data:`MEASURES`.
        images: how many images both have; nothing else enters.
        passes: forward and backward passes per image of both, all epsilons together.
        rows: per epsilon ``eps, eps_label, a, b`` (means), ``difference`` (a - b), its 95 % interval ``lo, hi``,
            two-sided ``p_value``, ``p_holm`` (over the epsilons above 0) and ``test``.
        statements: what may be said about the epsilons above 0: a ``sentence``, its ``scope`` (``every`` epsilon, each
            one significant; ``some``, after Holm's correction; or ``none``), which is ``better`` (has the larger
            values), the ``p_value`` of it, and the labels of the ``epsilons`` that it holds at.
    """

    a: str
    b: str
    conditions: dict[str, Any]
    measure: str
    images: int
    passes: tuple[float, float]
    rows: pd.DataFrame
    statements: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The same as plain lists and dictionaries; what does not exist is null."""
        rows = self.rows.astype(object).where(self.rows.notna(), None).to_dict("records")
        own = {name: value for name, value in vars(self).items() if name != "conditions"}
        return {**own, **self.conditions, "rows": rows}


def models(runs: Sequence[Run]) -> list[Pair]:
    """Every pair of models (or gatings, or runs) that met the same attack on the same images.

    Raises:
        UserError: there is no such pair.
    """
    entries = [(run, curve) for run in runs for curve in run.curves]
    groups: dict[tuple[Any, ...], list[tuple[Run, Curve]]] = {}
    for run, curve in entries:
        key = (*(getattr(curve, name) for name in MODELS), _settings(run, curve))
        groups.setdefault(key, []).append((run, curve))
    names = _names(entries)
    found: list[Pair] = []
    for key, members in groups.items():
        conditions = dict(zip(MODELS, key, strict=False))
        for (run_a, a), (run_b, b) in combinations(members, 2):
            titles = names[run_a.path, a.contestant], names[run_b.path, b.contestant]
            found += _pair(titles, conditions, "accuracy", (a, b), run_a.shares(a), run_b.shares(b))
    if not found:
        raise UserError(
            "nothing to compare: no two models met the same attack, attacker, defence, norm, epsilon and seed on the "
            "same images; sweep them with the same options."
        )
    return found


def attacks(run: Run, measure: str, chosen: Sequence[str] = ()) -> list[Pair]:
    """The first attack against every other one, wherever both met the same model and images.

    Args:
        run: a finished run.
        measure: a key of :data:`MEASURES`.
        chosen: attacks as the run labels them, or parts of such labels. The first, which must fit one attack only, is
            held against all that the others fit; alone, against every other attack. None: the run's first attack.

    Raises:
        UsageError: the run has no such measure or attack.
        UserError: no two of the attacks can be compared, or the model decides nothing that could be measured.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    labels = list(dict.fromkeys(curve.attack for curve in run.curves))
    if len(labels) < 2:
        raise UserError(f"'{run.name}' has fewer than two attacks to compare; sweep several with -a.")
    first = _one(chosen[0], labels) if chosen else labels[0]
    rivals = dict.fromkeys(label for name in chosen[1:] for label in _all(name, labels)) or labels
    groups: dict[tuple[Any, ...], dict[str, Curve]] = {}
    for curve in run.curves:
        groups.setdefault(tuple(getattr(curve, name) for name in ATTACKS), {})[curve.attack] = curve
    found: list[Pair] = []
    for key, curves in groups.items():
        for other in (label for label in rivals if label != first and {first, label} <= set(curves)):
            pair = curves[first], curves[other]
            values = (_values(run, MEASURES[measure][0], curve) for curve in pair)
            found += _pair((first, other), dict(zip(ATTACKS, key, strict=True)), measure, pair, *values)
    if not found:
        raise UserError(f"no model of '{run.name}' met both '{first}' and another of the attacks; name others.")
    return found


def table(pair: Pair) -> Table:
    """The pair, row by row."""
    c, unit = pair.conditions, MEASURES[pair.measure][1]
    who = [c[name] for name in ("model", "gating", "attack") if c.get(name, "none") != "none"]
    where = [*who, c["attacker"], text.norm(c["norm"]), text.defense(c["defense"]), f"seed {c['seed']}"]
    passes = " and ".join(f"{count:,.0f}" for count in pair.passes)
    rows = []
    for row in pair.rows.to_dict("records"):
        ends = [text.points(row[end]) if unit == "share" else text.write(row[end], unit) for end in _ENDS]
        numbers = [text.write(row["a"], unit), text.write(row["b"], unit), f"{ends[0]} [{ends[1]}, {ends[2]}]"]
        numbers += [text.p_value(row["p_value"]), text.p_value(row["p_holm"])]
        rows.append(([row["eps_label"]], [Shown(number) for number in numbers]))
    heads = (pair.a, pair.b, "difference [95 %]", "p", "p (Holm)")
    title = f"{pair.a} against {pair.b}: {pair.measure}{', %' if unit == 'share' else ''}"
    note = f"{' · '.join([c['dataset'], *where])} · {pair.images:,} images · {passes} passes per image"
    return Table(title, ("eps",), heads, rows, note)


def _pair(
    names: tuple[str, str],
    conditions: dict[str, Any],
    measure: str,
    curves: tuple[Curve, Curve],
    a: pd.DataFrame,
    b: pd.DataFrame,
) -> Iterator[Pair]:
    """The pair, where the two tables (epsilons by label, images) share an attacked epsilon and an image."""
    labels, ids = [label for label in a.index if label in b.index], a.columns.intersection(b.columns)
    if ids.empty or not set(labels) - {"0"}:
        return
    eps = curves[0].rows.set_index("eps_label")["eps"]
    records, one_sided = [], []
    for label in labels:
        first, second = a.loc[label, ids].to_numpy(float), b.loc[label, ids].to_numpy(float)
        scale = max(1.0, float(first.max()), float(second.max()))
        ahead = compare(first / scale, second / scale, seed=0, alternative="greater")
        behind = compare(second / scale, first / scale, seed=0, alternative="greater")
        difference, lo, hi, _ = ahead.difference
        records.append(
            {
                "eps": float(eps[label]),
                "eps_label": label,
                "a": float(first.mean()),
                "b": float(second.mean()),
                "difference": scale * difference,
                "lo": scale * lo,
                "hi": scale * hi,
                "p_value": min(1.0, 2 * min(ahead.p_value, behind.p_value)),
                "test": ahead.test,
            }
        )
        one_sided.append((ahead.p_value, behind.p_value))
    rows = pd.DataFrame(records)
    attacked = (rows["eps"] > 0).to_numpy()
    rows["p_holm"] = np.nan
    rows.loc[attacked, "p_holm"] = holm(rows.loc[attacked, "p_value"].to_numpy())
    said = statements(names, measure, list(rows.loc[attacked, "eps_label"]), np.array(one_sided)[attacked].T)
    passes = curves[0].passes, curves[1].passes
    yield Pair(*names, conditions, measure, len(ids), passes, rows, said)


def statements(
    names: tuple[str, str], measure: str, labels: list[str], p_values: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """The statements of a :class:`Pair`.

    Args:
        names: of the two.
        measure: what is compared.
        labels: (E,) of the epsilons.
        p_values: (2, E) one-sided, that either is ahead. That it is at *every* epsilon needs no correction (Berger
            1982).
    """
    found: list[tuple[str, str, str | None, float | None, list[str]]] = []
    for better, worse, p in zip(names, reversed(names), p_values, strict=True):
        ahead, adjusted = f"{measure} is higher with {better} than with {worse}", holm(p)
        where = [label for label, value in zip(labels, adjusted, strict=True) if value <= LEVEL / 2]
        if p.max() <= LEVEL / 2:
            found.append(
                (
                    f"{ahead} at every epsilon (largest p {text.p_value(p.max())}).",
                    "every",
                    better,
                    float(p.max()),
                    labels,
                )
            )
        elif where:
            sentence = f"{ahead} at some epsilon (Holm): {', '.join(where)}; not shown at every one."
            found.append((sentence, "some", better, float(adjusted.min()), where))
    if not found:
        sentence = f"No difference between {names[0]} and {names[1]} is established at any epsilon."
        found.append((sentence, "none", None, None, []))
    return [dict(zip(("sentence", "scope", "better", "p_value", "epsilons"), said, strict=True)) for said in found]


def _values(run: Run, column: str, curve: Curve) -> pd.DataFrame:
    """A column of the samples for every attacked image, in shares of draws: a row per epsilon, by label, and a column
    per image id."""
    attacked = curve.attacked
    samples, draws = run.samples(str(attacked["cell"].iloc[0])), int(attacked["draws"].iloc[0])
    if column not in samples:
        raise UserError(f"'{run.name}' holds no decisions of {curve.contestant}; measure accuracy there.")
    crossed = min(CROSSED_DRAWS, draws)
    whole = {"macs_adv": 1, "correct_features": crossed, "correct_gates": crossed}.get(column, draws)
    shares = samples[column].map(np.mean) / whole
    return (
        samples.assign(value=shares).pivot(index="eps_label", columns="id", values="value").loc[attacked["eps_label"]]
    )


def _settings(run: Run, curve: Curve) -> str:
    """Every parameter of attack and defence, and the split: their names alone may hide a difference."""
    identity = run.planned[curve.strongest["cell"]]["identity"]
    return json.dumps([identity["attack"], identity["defense"], identity["dataset"][:2]], sort_keys=True)


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


def _all(name: str, labels: Sequence[str]) -> list[str]:
    """The label of that name, or all that contain it."""
    fitting = [label for label in labels if name in label]
    if not fitting:
        raise unknown("attack of the run", name, labels)
    return [name] if name in labels else fitting


def _one(name: str, labels: Sequence[str]) -> str:
    fitting = _all(name, labels)
    if len(fitting) > 1:
        raise UsageError(f"'{name}' fits {len(fitting)} attacks of the run ({', '.join(fitting)}); write one in full.")
    return fitting[0]
