"""A run as tables for people: what every entry says, how it is written, and what it is sorted by.

The console and the page print the same tables; how they look is theirs. What a table of numbers shows is said beside
the columns of :mod:`robustbench_aig.engine.columns` and the measures of :mod:`robustbench_aig.gates.measures`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from robustbench_aig.contracts.columns import Column
from robustbench_aig.engine.columns import SUMMARY
from robustbench_aig.gates.measures import MEASURES
from robustbench_aig.report import text
from robustbench_aig.report.headline import Headline, worst_cases
from robustbench_aig.report.run import CURVE, Curve, Run

RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

_RATES = {"rate_clean": "before", "rate_adv": "after", "flip_rate": "flipped", "flip_rate_null": "without attack"}

SECTIONS = {
    "random": "random models: expected accuracy of one draw, of the vote, and share right in all draws, %",
    "gates": "decisions: units executed, multiply-adds, and decisions flipped per image, %",
    "graphs": "whole graphs: distances, compute won back, and what graphs tell of the class, %",
    "mediation": "accuracy where the attack may change features, decisions, both or neither, %",
}
"""Short tables by the sections of columns and measures, and their titles."""


class Shown(NamedTuple):
    """One number: what is written, its interval, and what it is sorted by."""

    text: str
    span: str = ""
    key: float | str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        names: headings of the columns that name a row.
        heads: headings of its numbers.
        rows: the names and the numbers of each.
        note: a line more about it.
    """

    title: str
    names: Sequence[str]
    heads: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[Shown]]]
    note: str = ""


def shown(value: float, lo: float, hi: float) -> Shown:
    """A share in per cent with its interval."""
    span = "" if pd.isna(lo) else f"{text.percent(lo)}\N{EN DASH}{text.percent(hi)}"
    return Shown(text.percent(value), span, value)


def entry(column: Column[Any], values: Mapping[Any, Any], interval: bool) -> Shown:
    """The value of a column, beside the one before the attack, and its interval, ``lo`` to ``hi``."""
    value = values.get(column.name)
    if value is None or pd.isna(value):
        return Shown(text.write(math.nan, column.unit), key=-1.0)
    words = [text.write(values[name], column.unit) for name in (column.before, column.name) if name]
    has = interval and len(words) == 1 and pd.notna(values["lo"])
    span = "\N{EN DASH}".join(text.write(values[end], column.unit) for end in ("lo", "hi")) if has else ""
    return Shown(" → ".join(words), span, value)


def numbers(columns: Sequence[Column[Any]], row: Mapping[Any, Any]) -> list[Shown]:
    """What a row of ``summary.csv`` says in some columns."""
    return [entry(column, row, "lo" in column.names) for column in columns]


def measured(columns: Sequence[Column[Any]], found: pd.DataFrame) -> list[Shown]:
    """What the measures of an attack say, of :meth:`.Run.measures`."""
    values = dict(found["value"])
    ends = {column.name: found.loc[column.name].to_dict() for column in columns if column.name in values}
    return [entry(column, values | {**ends.get(column.name, {}), "value": 0}, True) for column in columns]


def accuracy(run: Run) -> Iterator[Table]:
    """Accuracy with its interval: a table per attack, attacker, norm and defence, a column per epsilon."""
    if not run.curves:
        rows = [([r["model"], r["gating"], r["defense"]], [shown(r["accuracy"], r["lo"], r["hi"])]) for r in _rows(run)]
        yield Table("accuracy [95 %] on clean images", ("model", "gating", "defence"), ("accuracy",), rows)
    blocks: dict[tuple[str, ...], list[Curve]] = {}
    for curve in run.curves:
        block = blocks.setdefault((curve.attack, curve.attacker, curve.norm, curve.defense), [])
        block += [curve, *(path for path in run.paths if _is_path_of(path, curve))]
    for (attack, attacker, norm, defense), curves in blocks.items():
        epsilons = list(dict.fromkeys(label for curve in curves for label in curve.rows["eps_label"]))
        rows = []
        for curve in curves:
            found = {r["eps_label"]: shown(r["accuracy"], r["lo"], r["hi"]) for r in curve.rows.to_dict("records")}
            rows.append(([_row_name(curve, curves)], [found.get(label, Shown(text.NONE)) for label in epsilons]))
        title = f"accuracy [95 %] · {attack} · {attacker} · {text.norm(norm)} · {text.defense(defense)}"
        yield Table(title, ("eps",), epsilons, rows)


def worst(run: Run) -> Iterator[Table]:
    """The worst case at every epsilon: a row per model, gating, defence and norm."""
    cases = list(worst_cases(run))
    epsilons = dict.fromkeys(entry.row["eps_label"] for entry in sorted(cases, key=lambda entry: entry.row["eps"]))
    groups: dict[tuple[str, str, str], dict[str, Headline]] = {}
    for case in cases:
        key = case.contestant, _dash(case.row["defense"]), text.norm(case.row["norm"])
        groups.setdefault(key, {})[case.row["eps_label"]] = case
    rows = []
    for names, found in groups.items():
        clean = shown(*next(iter(found.values())).clean[:3])
        bounds = [_bound(found[label]) if label in found else Shown(text.NONE) for label in epsilons]
        rows.append((names, [clean, *bounds]))
    note = (
        "Accuracy in per cent, with its 95 % interval, under the attack that lowers it most. “≤” marks numbers that an "
        "iterated attack found which knows the decisions and the defence."
    )
    if rows:
        yield Table("worst case at every strength", ("model", "defence", "norm"), ("clean", *epsilons), rows, note)


def sections(run: Run, every: bool = False) -> Iterator[Table]:
    """What attacks did, in short tables: at the largest epsilon of each curve, or with intervals at ``every`` one."""
    attacked = [
        (curve, row) for curve in run.curves for _, row in (curve.attacked if every else curve.rows.tail(1)).iterrows()
    ]
    for section, title in SECTIONS.items():
        columns, measures = SUMMARY.shown(section), MEASURES.shown(section)
        rows = []
        for curve, row in attacked:
            found = run.measures(row) if measures else pd.DataFrame()
            said = numbers(columns, dict(row)) if columns else measured(measures, found)
            if any(number.text != text.NONE for number in said) and (section != "random" or row["draws"] > 1):
                names = [curve.contestant, _dash(curve.defense), f"{curve.attack} {curve.attacker}", text.budget(row)]
                rows.append((names, said if every else [number._replace(span="") for number in said]))
        if rows:
            heads = [column.heading for column in columns or measures]
            yield Table(title, ("model", "defence", "attack", "eps"), heads, rows)


def certified(run: Run) -> Iterator[Table]:
    """Share of images whose label is certified up to an L2 radius, where the defence certifies (Gaussian smoothing)."""
    defended = run.summary[(run.summary["attack"] == "none") & (run.summary["defense"] != "none")]
    rows = []
    for row in defended.to_dict("records"):
        samples = run.samples(row["cell"])
        if "radius" in samples:
            shares = [float((samples["radius"] > radius).mean()) for radius in RADII]
            names = [row["model"], row["gating"], row["defense"], str(row["draws"])]
            rows.append((names, [Shown(text.percent(share), key=share) for share in shares]))
    title = "certified accuracy of the vote, %: L2 radius in pixel values, each certificate wrong once in 1,000"
    if rows:
        yield Table(title, ("model", "gating", "defence", "draws"), [f"{radius:g}" for radius in RADII], rows)


def every_row(run: Run) -> Table:
    """All rows of ``summary.csv``."""
    keys, columns = [name for name in CURVE if name != "dataset"], SUMMARY.shown()
    rows = []
    for row in _rows(run):
        said = [Shown(row["eps_label"], key=row["eps"]), *numbers(columns, row)]
        rows.append(([_dash(str(row[key])) for key in keys], said))
    heads = ("ε", *(column.heading for column in columns))
    return Table("all rows", keys, heads, rows, "Accuracies and rates in per cent. Click on a heading to sort.")


def layers(run: Run) -> Iterator[Table]:
    """How often every unit runs, before and after the attack that lowered accuracy most."""
    group = run.group if len(run.execution) else "all"
    images = "All images" if group == "all" else f"Images of {group}"
    for curve in run.telling:
        rows = []
        for row in run.layers(curve, group).to_dict("records"):
            shift = f"{text.points(row['shift'])} [{text.points(row['lo'])}, {text.points(row['hi'])}]"
            shares = [Shown(text.percent(row[name]), key=row[name]) for name in _RATES]
            rows.append(([f"{row['layer']} · {row['block']}"], [*shares, Shown(shift, key=row["shift"])]))
        title = f"execution rates · {curve.contestant} · {attack_of(curve)}"
        yield Table(
            title,
            ("unit",),
            (*_RATES.values(), "shift, points [95 %]"),
            rows,
            f"{images}, in per cent, at the largest ε.",
        )


def settings(title: str, values: Mapping[str, Any]) -> Table:
    """Configuration or provenance, by dotted names."""
    return Table(title, ("name", "value"), (), [(pair, ()) for pair in flat(values)])


def cells(run: Run) -> Table:
    """Every planned cell and its state."""
    finished = set(run.summary["cell"])
    states = [run.failed.get(cell["label"], "finished" if cell["id"] in finished else "to do") for cell in run.cells]
    rows = [((cell["id"], cell["label"], state), ()) for cell, state in zip(run.cells, states, strict=True)]
    return Table(f"cells ({len(finished)} of {len(run.cells)} finished)", ("id", "cell", "state"), (), rows)


def subject(run: Run) -> str:
    """What was measured, as in ``cifar10 · 10,000 images · seed 0``."""
    datasets = ", ".join(run.summary["dataset"].unique())
    counts = " or ".join(f"{size:,}" for size in sorted(run.summary["n"].unique()))
    seeds = sorted(run.summary["seed"].unique())
    return f"{datasets} · {counts} images · {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def audit_counts(run: Run) -> str:
    """How many checks had which outcome, as in ``19 pass · 2 warn · 0 fail``."""
    found = [entry.verdict for entry in run.audit]
    return " · ".join(f"{found.count(verdict)} {verdict.lower()}" for verdict in ("PASS", "WARN", "FAIL"))


def attack_of(curve: Curve, budget: bool = True) -> str:
    """The attack of a curve, as in ``fgsm, static, L∞ 8/255``, or without its largest epsilon."""
    row = curve.strongest
    return f"{curve.attack}, {curve.attacker}, {text.budget(row) if budget else text.norm(row['norm'])}"


def flat(values: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of dotted names and values; a list of plain values is one of them."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list) and any(isinstance(value, dict | list) for value in values):
        for number, value in enumerate(values):
            yield from flat(value, f"{prefix}[{number}]")
    elif isinstance(values, list):
        yield prefix, ", ".join(map(str, values))
    else:
        yield prefix, text.NONE if values is None else str(values)


def _rows(run: Run) -> list[dict[Any, Any]]:
    return run.summary.to_dict("records")


def _bound(case: Headline) -> Shown:
    number = shown(*case.found[:3])
    return number._replace(text=f"≤ {number.text}") if case.robust else number


def _dash(name: str) -> str:
    return text.NONE if name == "none" else name


def _is_path_of(path: Curve, curve: Curve) -> bool:
    same = all(getattr(path, name) == getattr(curve, name) for name in CURVE if name != "attacker")
    return same and path.attacker.startswith(f"{curve.attacker}/")


def _row_name(curve: Curve, curves: list[Curve]) -> str:
    if "/" in curve.attacker:
        return f"  {curve.attacker.partition('/')[2]}"
    repeated = sum(other.contestant == curve.contestant and "/" not in other.attacker for other in curves) > 1
    return f"{curve.contestant} · seed {curve.seed}" if repeated else curve.contestant
