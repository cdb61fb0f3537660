"""The tables of a run on the console."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robustbench_aig.report import text
from robustbench_aig.report.headline import headlines
from robustbench_aig.report.run import CURVE, Curve, Run

STYLES = {"FAIL": "bold red", "WARN": "yellow", "INFO": "cyan", "PASS": "green", "n.a.": "dim"}
NOT_A_CLAIM = "NOT A ROBUSTNESS CLAIM"

RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)

_CELL = 13  # columns of the console that one epsilon takes


def report(run: Run, width: int) -> Iterator[RenderableType]:
    """Everything that ``robustbench-aig report`` prints.

    Args:
        run: a finished run.
        width: of the console; a table with more epsilons than fit goes on below.
    """
    yield headline(run)
    yield from accuracy(run, width)
    yield from stochastic(run)
    yield from certified(run)
    yield from gates(run)
    yield from graphs(run)


def headline(run: Run) -> Group:
    """The lowest accuracy of each model, gating and defence, with the audit; under a banner if that failed."""
    lines: list[RenderableType] = []
    if run.claim_valid is False:
        lines.append(_banner())
    lines.append(Text(subject(run), "bold"))
    for entry in headlines(run):
        line = Text.assemble(
            (entry.contestant, "bold"), "  ", (entry.claim, "bold"), "  ", (f"({entry.circumstances})", "dim")
        )
        lines.append(line)
    lines += list(_audit(run))
    if run.failed or run.unfinished:
        lines.append(
            Text(
                f"{run.unfinished} of {len(run.cells)} cells have no result; the sweep's command resumes them.",
                "yellow",
            )
        )
    return Group(*lines)


def subject(run: Run) -> str:
    """What was measured, as in ``cifar10 · 10,000 images · seed 0``."""
    if run.summary.empty:
        return run.name
    datasets = ", ".join(run.summary["dataset"].unique())
    sizes = sorted(run.summary["n"].unique())
    seeds = sorted(run.summary["seed"].unique())
    counts = " or ".join(f"{size:,}" for size in sizes)
    return f"{datasets} · {counts} images · {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def audit_counts(run: Run) -> str:
    """How many checks had which outcome, as in ``19 pass · 2 warn · 0 fail``."""
    found = [entry.verdict for entry in run.audit]
    return " · ".join(f"{found.count(verdict)} {verdict.lower()}" for verdict in ("PASS", "WARN", "FAIL"))


def audit(run: Run) -> Iterator[RenderableType]:
    """Every verdict of the audit: the worst first, each with symptom, remedy and what was measured."""
    if run.claim_valid is False:
        yield _banner()
    yield Text(f"{run.name} · {subject(run)}", "bold")
    labels = {cell["id"]: cell["label"] for cell in run.cells}
    table = _plain(f"audit: {audit_counts(run)}" if run.audit else "audit: not run")
    for column in ("", "check", "finding", "measured", "limit"):
        table.add_column(column, overflow="fold")
    for verdict, colour in STYLES.items():
        for entry in run.audit:
            if entry.verdict == verdict:
                where = f"\n{labels.get(entry.cell, entry.cell)}" if entry.cell else ""
                table.add_row(
                    Text(verdict, colour),
                    f"{entry.id} {entry.title}",
                    Text.assemble(entry.text, (where, "dim")),
                    text.NONE if entry.value is None else f"{entry.value:.4g}",
                    text.NONE if entry.threshold is None else f"{entry.threshold:.4g}",
                )
    yield table


def _banner() -> Panel:
    return Panel(Text(f"{NOT_A_CLAIM}: a check of the audit failed, see below", "bold red"), style="red", expand=False)


def _audit(run: Run) -> Iterator[Text]:
    if not run.audit:
        yield Text("audit: not run", "dim")
        return
    labels = {cell["id"]: cell["label"] for cell in run.cells}
    yield Text(f"audit: {audit_counts(run)}")
    for verdict in ("FAIL", "WARN", "INFO"):
        for entry in run.audit:
            if entry.verdict == verdict:
                where = f"  ({labels.get(entry.cell, entry.cell)})" if entry.cell else ""
                yield Text.assemble("  ", (verdict, STYLES[verdict]), f" {entry.id}  {entry.text}", (where, "dim"))


def accuracy(run: Run, width: int) -> Iterator[Table]:
    """Accuracy in per cent with its 95 % interval: a table per attack, attacker and defence, a column per epsilon."""
    if not run.curves:
        clean = run.summary
        yield from _clean_only(clean)
    blocks: dict[tuple[str, str, str, str], list[Curve]] = {}
    for curve in run.curves:
        blocks.setdefault((curve.attack, curve.attacker, curve.norm, curve.defense), []).append(curve)
        inside = [path for path in run.paths if _is_path_of(path, curve)]
        blocks[(curve.attack, curve.attacker, curve.norm, curve.defense)] += inside
    for (attack, attacker, norm, defense), curves in blocks.items():
        title = f"accuracy [95 %] · {attack} · {attacker} · {text.norm(norm)} · {text.defense(defense)}"
        names = {id(curve): _row_name(curve, curves) for curve in curves}
        room = max(1, (width - max(map(len, names.values())) - 4) // _CELL)
        epsilons = list(dict.fromkeys(label for curve in curves for label in curve.rows["eps_label"]))
        for start in range(0, len(epsilons), room):
            shown = epsilons[start : start + room]
            table = _plain(title if start == 0 else None)
            table.add_column("eps")
            for label in shown:
                table.add_column(label, justify="right", no_wrap=True)
            for curve in curves:
                cells = dict(zip(curve.rows["eps_label"], map(_number, curve.rows.to_dict("records")), strict=True))
                table.add_row(names[id(curve)], *(cells.get(label, text.NONE) for label in shown))
            yield table


def stochastic(run: Run) -> Iterator[Table]:
    """Three numbers for everything random, at the largest epsilon of each curve and on clean images."""
    curves = [curve for curve in run.curves if curve.strongest["draws"] > 1]
    if not curves:
        return
    draws = int(curves[0].strongest["draws"])
    table = _plain(f"random models at the largest epsilon: expected accuracy, vote and worst of {draws} draws, %")
    for column in ("model", "defence", "attack", "eps"):
        table.add_column(column)
    for column in ("expected", f"vote@{draws}", f"worst@{draws}", f"worst@{draws} clean"):
        table.add_column(column, justify="right")
    for curve in curves:
        row = curve.strongest
        numbers = [
            text.percent(row[name]) for name in ("accuracy", "vote_accuracy", "worst_accuracy", "worst_accuracy_clean")
        ]
        table.add_row(curve.contestant, curve.defense, f"{curve.attack} {curve.attacker}", row["eps_label"], *numbers)
    yield table


def certified(run: Run) -> Iterator[Table]:
    """Share of images whose label is certified up to an L2 radius, where the defence certifies (Gaussian smoothing)."""
    defended = run.summary[(run.summary["attack"] == "none") & (run.summary["defense"] != "none")]
    cells = [(row, run.samples(row["cell"])) for row in defended.to_dict("records")]
    found = [(row, samples["radius"].to_numpy()) for row, samples in cells if "radius" in samples]
    if not found:
        return
    table = _plain("certified accuracy of the vote, %: L2 radius in pixel values, each certificate wrong once in 1,000")
    for column in ("model", "gating", "defence", "draws"):
        table.add_column(column)
    for radius in RADII:
        table.add_column(f"{radius:g}", justify="right")
    for row, radii in found:
        shares = [text.percent(float((radii > radius).mean())) for radius in RADII]
        table.add_row(row["model"], row["gating"], row["defense"], str(row["draws"]), *shares)
    yield table


def gates(run: Run) -> Iterator[Table]:
    """What each attack did to the gates, at its largest epsilon."""
    curves = [curve for curve in run.curves if pd.notna(curve.strongest["exec_rate_adv"])]
    if not curves:
        return
    table = _plain("gates at the largest epsilon: execution rate, compute, and gates flipped per image, %")
    for column in ("model", "defence", "attack", "eps"):
        table.add_column(column)
    for column in ("executed", "MACs", "flipped", "without attack"):
        table.add_column(column, justify="right")
    for curve in curves:
        row = curve.strongest
        table.add_row(
            curve.contestant,
            curve.defense,
            f"{curve.attack} {curve.attacker}",
            row["eps_label"],
            f"{text.percent(row['exec_rate_clean'])} → {text.percent(row['exec_rate_adv'])}",
            f"{text.macs(row['macs_clean'])} → {text.macs(row['macs_adv'])}",
            text.percent(row["flip_rate"]),
            text.percent(row["flip_rate_null"]),
        )
    yield table


GRAPHS = {
    "whole graphs at the largest epsilon: kept, compute won back from gates, information on the class, monitor": (
        ("graph kept, %", ("graph_kept",)),
        ("MACs up, %", ("recovered_up_pooled",)),
        ("down, %", ("recovered_down_pooled",)),
        ("class, bits", ("information_clean", "information_adv")),
        ("monitor AUC", ("monitor_auc",)),
    ),
    "accuracy where the attack may change features, gates, both or neither, %": (
        ("neither", ("mediation_neither",)),
        ("features", ("mediation_features",)),
        ("gates", ("mediation_gates",)),
        ("both", ("mediation_both",)),
    ),
}
"""Tables of whole graphs: their titles, headings and the measures below each."""


def measured(found: pd.DataFrame, names: tuple[str, ...]) -> str:
    """Values of some measures of a row, as in ``0.84 → 0.31``; shares in per cent, others as they are."""
    values = found["value"].to_dict()
    return " → ".join(_write(names[0], values.get(name, math.nan)) for name in names)


def span(found: pd.DataFrame, names: tuple[str, ...]) -> str:
    """The interval of a measure that stands alone; empty where it has none."""
    if len(names) > 1 or names[0] not in found.index or math.isnan(found["lo"][names[0]]):
        return ""
    return "[" + ", ".join(_write(names[0], found[end][names[0]]) for end in ("lo", "hi")) + "]"


def _write(name: str, value: float) -> str:
    bare = name.startswith(("information", "monitor", "macs_ratio"))
    return text.NONE if math.isnan(value) else f"{value:.2f}" if bare else text.percent(value)


def graphs(run: Run) -> Iterator[Table]:
    """What each attack did to whole graphs, at its largest epsilon."""
    pairs = [(curve, run.measures(curve.strongest)) for curve in run.curves]
    pairs = [(curve, found) for curve, found in pairs if len(found)]
    for title, columns in GRAPHS.items() if pairs else ():
        table = _plain(title)
        for column in ("model", "defence", "attack", "eps"):
            table.add_column(column)
        for column, _ in columns:
            table.add_column(column, justify="right")
        for curve, found in pairs:
            attack = f"{curve.attack} {curve.attacker}"
            numbers = [measured(found, names) for _, names in columns]
            table.add_row(curve.contestant, curve.defense, attack, curve.strongest["eps_label"], *numbers)
        yield table


def show(run: Run) -> Iterator[RenderableType]:
    """What a run is made of: configuration, cells and provenance."""
    yield Text(f"{run.name} · {subject(run)}", "bold")
    for title, values in (("configuration", run.config), ("provenance", run.provenance)):
        table = _plain(title)
        table.add_column("name", no_wrap=True)
        table.add_column("value", overflow="fold")
        for name, value in flat(values):
            table.add_row(name, value)
        yield table
    finished = set(run.summary["cell"])
    table = _plain(f"cells ({len(finished)} of {len(run.cells)} finished)")
    for column in ("id", "cell", "state"):
        table.add_column(column)
    for cell in run.cells:
        state = run.failed.get(cell["label"], "finished" if cell["id"] in finished else "to do")
        table.add_row(cell["id"], cell["label"], state)
    yield table


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


def print_all(console: Console, parts: Iterator[RenderableType]) -> None:
    """Print parts with a blank line after each."""
    for part in parts:
        console.print(part)
        console.print()


def _clean_only(clean: pd.DataFrame) -> Iterator[Table]:
    table = _plain("accuracy [95 %] on clean images")
    for column in ("model", "gating", "defence", "accuracy"):
        table.add_column(column)
    for row in clean.to_dict("records"):
        table.add_row(row["model"], row["gating"], row["defense"], text.interval(row["accuracy"], row["lo"], row["hi"]))
    yield table


def _is_path_of(path: Curve, curve: Curve) -> bool:
    shared = [name for name in CURVE if name != "attacker"]
    same = all(getattr(path, name) == getattr(curve, name) for name in shared)
    return same and path.attacker.startswith(f"{curve.attacker}/")


def _row_name(curve: Curve, curves: list[Curve]) -> str:
    if "/" in curve.attacker:
        return f"  {curve.attacker.partition('/')[2]}"
    repeated = sum(other.contestant == curve.contestant and "/" not in other.attacker for other in curves) > 1
    return f"{curve.contestant} · seed {curve.seed}" if repeated else curve.contestant


def _number(row: dict[Any, Any]) -> str:
    return f"{text.percent(row['accuracy'])}\n[dim]{text.span(row['lo'], row['hi'])}[/dim]"


def _plain(title: str | None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
