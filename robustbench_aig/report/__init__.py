"""What a run found, for people: console tables, PNG figures, a self-contained HTML page, comparisons.

Only ``write_report`` loads matplotlib, and nothing here torch.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from robustbench_aig.report import compare
from robustbench_aig.report import console as printed
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
    return [*(file for file, _ in drawn), html.write(loaded, run / "report.html", drawn)]


def print_run(run: Path, console: Console) -> None:
    """Print headline, audit, accuracy and gate tables; raises as :func:`read_run`."""
    _print(console, *printed.report(read_run(run), console.width))


def show_run(run: Path, console: Console) -> None:
    """Print configuration, provenance and cells; raises as :func:`read_run`."""
    _print(console, *printed.show(read_run(run), console.width))


def audit_run(run: Path, console: Console | None = None) -> dict[str, Any]:
    """What the audit of a run found; print it if a console is given. Raises as :func:`read_run`.

    Returns:
        ``claim_valid`` and ``audit``, the findings.
    """
    loaded = read_run(run)
    if console is not None:
        _print(console, *printed.audit(loaded))
    return {"claim_valid": loaded.claim_valid, "audit": [asdict(entry) for entry in loaded.audit]}


def describe_run(run: Path) -> dict[str, Any]:
    """What ``print_run`` and ``show_run`` print, as plain lists and dictionaries for JSON; raises as
    :func:`read_run`."""
    loaded = read_run(run)
    tables = {
        name: table.astype(object).where(table.notna(), None).to_dict("records")
        for name, table in (("summary", loaded.summary), ("gates", loaded.gates))
    }
    return {
        "run": loaded.name,
        "claim_valid": loaded.claim_valid,
        "headlines": [entry.as_json() for entry in headlines(loaded)],
        "audit": [asdict(entry) for entry in loaded.audit],
        **tables,
        **{name: getattr(loaded, name) for name in ("config", "notes", "provenance", "cells")},
    }


def compare_runs(runs: Sequence[Path], console: Console | None = None) -> dict[str, Any]:
    """Compare the models of one run or of several, image by image; print it if a console is given.

    Returns:
        ``runs``, their names, and ``comparisons``, each as :meth:`.compare.Pair.as_json` gives it.

    Raises:
        UserError: no two models met the same attack on the same images; and as :func:`read_run`.
    """
    loaded = [read_run(run) for run in runs]
    return {"runs": [run.name for run in loaded], "comparisons": _compared(compare.models(loaded), console)}


def compare_attacks(
    run: Path, measure: str, attacks: Sequence[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Hold the first of the attacks of a run against the others, image by image; print it if a console is given.

    Returns:
        ``run``, its name, ``measure``, and ``comparisons``, each as :meth:`.compare.Pair.as_json` gives it.

    Raises:
        As :func:`.compare.attacks` and :func:`read_run`.
    """
    loaded = read_run(run)
    found = _compared(compare.attacks(loaded, measure, attacks), console)
    return {"run": loaded.name, "measure": measure, "comparisons": found}


def _compared(pairs: Sequence[compare.Pair], console: Console | None) -> list[dict[str, Any]]:
    for pair in pairs:
        if console is None:
            break
        table = compare.table(pair)
        sentences = [Text(f"  {said['sentence']}", "" if said["better"] else "dim") for said in pair.statements]
        _print(console, Text(table.note), *printed.grids(table, console.width), *sentences)
    return [pair.as_json() for pair in pairs]


def _print(console: Console, *parts: RenderableType) -> None:
    """Print parts with a blank line after each."""
    for part in parts:
        console.print(part)
        console.print()
