"""The figures of a run, as matplotlib figures for notebooks and as PNG files."""

from collections.abc import Iterator
from pathlib import Path

from robustbench_aig.report.figures.accuracy import accuracy
from robustbench_aig.report.figures.gates import compute, execution, telling
from robustbench_aig.report.figures.graphs import crossed, distances, mediation
from robustbench_aig.report.figures.style import save
from robustbench_aig.report.run import Run

__all__ = ["accuracy", "compute", "distances", "execution", "mediation", "write"]


def write(run: Run, folder: Path) -> Iterator[Path]:
    """Write the figures that the run has data for; yields each file.

    Raises:
        UserError: the folder cannot be written.
    """
    if run.curves:
        yield save(accuracy(run), folder / "accuracy.png")
    if telling(run):
        yield save(execution(run), folder / "execution.png")
        yield save(distances(run), folder / "distances.png")
        yield save(compute(run), folder / "compute.png")
    if crossed(run):
        yield save(mediation(run), folder / "mediation.png")
