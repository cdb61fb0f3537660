"""The figures of a run, as matplotlib figures for notebooks and as PNG files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from robustbench_aig.errors import unknown
from robustbench_aig.report.figures.accuracy import accuracy
from robustbench_aig.report.figures.gates import compute, execution, telling
from robustbench_aig.report.figures.graphs import crossed, distances, mediation
from robustbench_aig.report.figures.style import save
from robustbench_aig.report.run import Run

__all__ = ["accuracy", "compute", "distances", "execution", "mediation", "write"]


def write(run: Run, folder: Path, groups: Sequence[str] = ()) -> Iterator[Path]:
    """Write the figures that the run has data for; yields each file.

    Args:
        run: the run.
        folder: receives the files.
        groups: classes and categories that get an execution figure of their own, such as ``animals``.

    Raises:
        UsageError: the run has no such group of images.
        UserError: the folder cannot be written.
    """
    known = set(run.execution["group"])
    for group in groups:
        if group not in known:
            raise unknown("group of images", group, known)
    if run.curves:
        yield save(accuracy(run), folder / "accuracy.png")
    if telling(run):
        yield save(execution(run), folder / "execution.png")
        yield save(distances(run), folder / "distances.png")
        yield save(compute(run), folder / "compute.png")
    if crossed(run):
        yield save(mediation(run), folder / "mediation.png")
    names: dict[str, str] = {}
    for group in dict.fromkeys(groups):
        name = re.sub(r"[^\w]+", "-", group)
        while names.setdefault(name, group) != group:  # "a b" and "a-b" are two groups
            name += "-"
        yield save(execution(run, group), folder / f"execution-{name}.png")
