"""What a run found, for people: console tables, PNG figures, a self-contained HTML page, comparisons.

``print_run``, ``show_run`` and ``compare_runs`` do not load matplotlib; ``write_report`` does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from robustbench_aig.report import compare, rivals, tables
from robustbench_aig.report.headline import headlines
from robustbench_aig.report.run import Run, read_run

__all__ = [
    "Run",
    "audit_run",
    "compare_attacks",
    "compare_runs",
    "describe_run",
    "print_run",
    "read_run",
    "show_run",
    "write_report",
]


def write_report(run: Path, groups: Sequence[str] = ()) -> list[Path]:
    """Write ``figures/*.png`` and ``report.html`` into the run folder; returns the files.

    The bytes depend on the run only, so that writing twice gives the same files.

    Args:
        run: the folder.
        groups: classes and categories that get an execution figure of their own.

    Raises:
        UsageError: the run has no such group of images.
        Prerequisite: there is no such run, or none of its cells is finished.
        UserError: the folder is no run or cannot be written.
    """
    from robustbench_aig.report import figures, html

    loaded = read_run(run)
    drawn = list(figures.write(loaded, run / "figures", groups))
    return [*drawn, html.write(loaded, run / "report.html", drawn)]


def print_run(run: Path, console: Console) -> None:
    """Print headline, audit, accuracy and gate tables.

    Raises:
        As :func:`read_run`.
    """
    tables.print_all(console, tables.report(read_run(run), console.width))


def show_run(run: Path, console: Console) -> None:
    """Print configuration, provenance and cells.

    Raises:
        As :func:`read_run`.
    """
    tables.print_all(console, tables.show(read_run(run)))


def audit_run(run: Path, console: Console | None = None) -> dict[str, Any]:
    """What the audit of a run found; print it if a console is given.

    Returns:
        ``claim_valid`` and ``audit``, the findings.

    Raises:
        As :func:`read_run`.
    """
    loaded = read_run(run)
    if console is not None:
        tables.print_all(console, tables.audit(loaded))
    return {"claim_valid": loaded.claim_valid, "audit": [entry._asdict() for entry in loaded.audit]}


def describe_run(run: Path) -> dict[str, Any]:
    """What ``print_run`` and ``show_run`` print, as plain lists and dictionaries for JSON.

    Raises:
        As :func:`read_run`.
    """
    loaded = read_run(run)
    summary, gates = (table.astype(object).where(table.notna(), None) for table in (loaded.summary, loaded.gates))
    return {
        "run": loaded.name,
        "claim_valid": loaded.claim_valid,
        "headlines": [
            {
                "model": entry.row["model"],
                "gating": entry.row["gating"],
                "defense": entry.row["defense"],
                "norm": entry.row["norm"],
                "eps_label": entry.row["eps_label"],
                "attacks": entry.attacks,
                "clean": entry.clean.value,
                "accuracy": entry.found.value,
                "lo": entry.found.lo,
                "hi": entry.found.hi,
                "robust": entry.robust,
            }
            for entry in headlines(loaded)
        ],
        "audit": [entry._asdict() for entry in loaded.audit],
        "summary": summary.to_dict("records"),
        "gates": gates.to_dict("records"),
        "config": loaded.config,
        "provenance": loaded.provenance,
        "cells": loaded.cells,
    }


def compare_runs(runs: Sequence[Path], console: Console | None = None) -> dict[str, Any]:
    """Compare the models of one run or of several, image by image; print it if a console is given.

    Returns:
        ``runs``, their names, and ``comparisons``, each as :meth:`.compare.Pairing.as_json` gives it.

    Raises:
        UserError: no two models met the same attack on the same images; and as :func:`read_run`.
    """
    loaded = [read_run(run) for run in runs]
    found = compare.pairings(loaded)
    if console is not None:
        for part in compare.tables(found):
            console.print(part)
    return {"runs": [run.name for run in loaded], "comparisons": [pair.as_json() for pair in found]}


def compare_attacks(
    run: Path, measure: str, attacks: Sequence[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Hold the first of the attacks of a run against the others, image by image; print it if a console is given.

    Returns:
        ``run``, its name, ``measure``, and ``comparisons``, each as :meth:`.rivals.Duel.as_json` gives it.

    Raises:
        As :func:`.rivals.duels` and :func:`read_run`.
    """
    loaded = read_run(run)
    found = rivals.duels(loaded, measure, attacks)
    if console is not None:
        for part in rivals.tables(found, measure):
            console.print(part)
    return {"run": loaded.name, "measure": measure, "comparisons": [duel.as_json() for duel in found]}
