"""The report as one HTML file that needs nothing else: no request leaves the page."""

import base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from robustbench_aig.files import write_atomically
from robustbench_aig.report import tables, text
from robustbench_aig.report.figures.gates import group_shown, layers, telling
from robustbench_aig.report.headline import Headline, headlines, worst_cases
from robustbench_aig.report.run import Run

CAPTIONS = {
    "accuracy": "Accuracy against the strength of the attack. Each band holds its whole curve with 95 % confidence; "
    "the dotted line is guessing.",
    "execution": "Left: how often each gated block is executed before and after the attack. Right: how many single "
    "decisions changed. Rates can stay where they are while every image takes another route.",
    "compute": "Multiply-adds before and after the attack: the share of images that take at most so many.",
    "distances": "How many gates decide otherwise on the attacked image than on the clean one, under the same noise: "
    "the share of images with so many, their mean over draws rounded.",
    "mediation": "Accuracy when features come from one image and the graph from the other. What gates alone take away "
    "passes through them; where both do better than features alone, the moved gates repair.",
}
"""What each figure shows, by its file's name."""


def write(run: Run, path: Path, figures: Sequence[Path]) -> Path:
    """Write the page; returns its path.

    Args:
        run: what to report.
        path: of the page.
        figures: PNG files to put into it.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(render(run, figures), encoding="utf-8", errors="backslashreplace")
    return path


def render(run: Run, figures: Sequence[Path]) -> str:
    """The page as text; arguments as for :func:`write`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files("robustbench_aig.report").joinpath("template.html").read_text("utf-8"))
    labels = {cell["id"]: cell["label"] for cell in run.cells}
    return template.render(
        run=run,
        subject=tables.subject(run),
        not_a_claim=tables.NOT_A_CLAIM,
        headlines=headlines(run),
        audit=[(entry, labels.get(entry.cell or "", entry.cell)) for entry in run.audit],
        audit_counts=tables.audit_counts(run),
        worst=_worst(list(worst_cases(run))),
        figures=[(file.stem, _caption(file.stem), base64.b64encode(file.read_bytes()).decode()) for file in figures],
        columns=[title for title, _ in _COLUMNS],
        rows=[list(_cells(row)) for row in run.summary.to_dict("records")],
        execution=list(_execution(run)),
        graphs=list(_graphs(run)),
        measures=[title for title, _ in _GRAPHS],
        group=group_shown(run) if len(run.execution) else "",
        config=list(tables.flat(run.config)),
        provenance=list(tables.flat(run.provenance)),
        text=text,
    )


def _caption(stem: str) -> str:
    """What a figure shows; ``execution-animals`` is the execution figure of one group of images."""
    kind, _, group = stem.partition("-")
    return f"Images of {group.replace('-', ' ')} alone. {CAPTIONS[kind]}" if group else CAPTIONS[kind]


def _worst(found: list[Headline]) -> dict[str, Any]:
    """Worst cases as a table: a column per epsilon, a row per model, gating, defence and norm."""
    epsilons = {entry.row["eps_label"]: entry.row["eps"] for entry in found}
    rows: dict[tuple[str, str, str], dict[str, Headline]] = {}
    for entry in found:
        rows.setdefault((entry.contestant, entry.row["defense"], text.norm(entry.row["norm"])), {})[
            entry.row["eps_label"]
        ] = entry
    return {"epsilons": sorted(epsilons, key=lambda label: epsilons[label]), "rows": rows}


_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("model", ("model",)),
    ("gating", ("gating",)),
    ("defence", ("defense",)),
    ("attack", ("attack",)),
    ("attacker", ("attacker",)),
    ("norm", ("norm",)),
    ("ε", ("eps_label",)),
    ("seed", ("seed",)),
    ("accuracy [95 %]", ("accuracy", "lo", "hi")),
    ("vote", ("vote_accuracy",)),
    ("worst", ("worst_accuracy",)),
    ("worst, clean", ("worst_accuracy_clean",)),
    ("executed", ("exec_rate_adv",)),
    ("executed, clean", ("exec_rate_clean",)),
    ("flipped", ("flip_rate",)),
    ("flipped, null", ("flip_rate_null",)),
    ("MACs", ("macs_adv",)),
    ("forwards", ("forwards_per_image",)),
    ("backwards", ("backwards_per_image",)),
    ("flags", ("flags",)),
)


def _cells(row: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """What each column shows, with the value it is sorted by."""
    for _, names in _COLUMNS:
        value = row[names[0]]
        if names[0] == "eps_label":
            yield value, str(row["eps"])
        elif names[0] == "flags":
            shown = "" if pd.isna(value) else value.replace(";", ", ")
            yield shown, shown
        elif isinstance(value, str):
            yield (text.NONE if value == "none" else value), value
        elif pd.isna(value):
            yield text.NONE, "-1"
        elif len(names) == 3:
            yield text.interval(*(row[name] for name in names)).replace(" % ", " "), str(value)
        elif names[0] == "macs_adv":
            yield text.macs(value), str(value)
        elif names[0] in ("seed", "forwards_per_image", "backwards_per_image"):
            yield f"{value:.4g}", str(value)
        else:
            yield text.percent(value), str(value)


_GRAPHS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("gates moved", ("hamming",)),
    ("null", ("hamming_null",)),
    ("graph kept", ("graph_kept",)),
    ("right: neither", ("mediation_neither",)),
    ("features", ("mediation_features",)),
    ("gates", ("mediation_gates",)),
    ("both", ("mediation_both",)),
    ("MACs ratio", ("macs_ratio",)),
    ("recovered up", ("recovered_up",)),
    ("recovered down", ("recovered_down",)),
    ("graph names class", ("prototype_true_clean", "prototype_true_adv")),
    ("class in gates, bits", ("information_clean", "information_adv")),
    ("monitor AUC", ("monitor_auc",)),
)


def _graphs(run: Run) -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    """Attack and measures of every attacked row that has some: a number and its interval for each of ``_GRAPHS``."""
    for curve in run.curves:
        for _, row in curve.rows[curve.rows["eps"] > 0].iterrows():
            found = run.measures(row)
            if len(found):
                keys = [curve.contestant, curve.defense.replace("none", text.NONE), curve.attack, curve.attacker]
                cells = [tables.measured(found, names) for _, names in _GRAPHS]
                spans = [tables.span(found, names) for _, names in _GRAPHS]
                yield [*keys, text.budget(row)], list(zip(cells, spans, strict=True))


def _execution(run: Run) -> Iterator[tuple[str, list[dict[Any, Any]]]]:
    for curve in telling(run):
        title = f"{curve.contestant} · {curve.attack}, {curve.attacker} · {text.budget(curve.strongest)}"
        yield title, layers(run, curve, group_shown(run)).to_dict("records")
