"""The figures of a run, as matplotlib figures for notebooks and as PNG files. A new one is a file in this folder."""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from robustbench_aig.errors import unknown
from robustbench_aig.report.figures.style import FIGURES, save
from robustbench_aig.report.run import Run

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def draw(name: str, run: Run, group: str | None = None) -> Figure | None:
    """One figure of a run; None where the run has no data for it.

    Args:
        name: of the figure: its file's, without ``.png``.
        run: the run.
        group: of images, for a figure that shows one.

    Raises:
        UsageError: there is no such figure.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    curves = FIGURES[name].of(run)
    return FIGURES[name].draw(run, curves, *([group] if group else [])) if curves else None


def write(run: Run, folder: Path, groups: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
    """Write the figures that the run has data for; yields each file and what it shows.

    Args:
        run: the run.
        folder: receives the files.
        groups: classes and categories that get a figure of their own, such as ``animals``.

    Raises:
        UsageError: the run has no such group of images.
        UserError: the folder cannot be written.
    """
    known = set(run.execution["group"])
    for group in groups:
        if group not in known:
            raise unknown("group of images", group, known)
    ends: dict[str, str | None] = {"": None}
    for group in dict.fromkeys(groups):
        end = "-" + re.sub(r"[^\w]+", "-", group)
        while ends.setdefault(end, group) != group:  # "a b" and "a-b" are two groups
            end += "-"
    for name, entry in sorted(FIGURES.items()):
        for end, shown in ends.items() if entry.grouped else [("", None)]:
            figure = draw(name, run, shown)
            if figure is not None:
                caption = entry.caption if shown is None else f"Images of {shown} alone. {entry.caption}"
                yield save(figure, folder / f"{name}{end}.png"), caption
