"""How far an attack moved the graphs of single images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from robustbench_aig.report.figures import style
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.report.tables import attack_of

Array = npt.NDArray[np.float64]

STEPS = ("#F6C9A8", "#E68A4F", style.AFTER)
"""Three budgets from weak to strong."""

BARS = 30
"""Numbers of units told apart on the axis; deeper networks share a bar between neighbours."""


@style.figure(
    "distances",
    "How many units decide otherwise on the attacked image than on the clean one, under the same noise: the share of "
    "images with so many, their mean over draws rounded.",
    of=lambda run: run.telling,
)
def distances(run: Run, curves: Sequence[Curve]) -> Figure:
    """How many units decide otherwise under the same noise, a panel per model and gating, at up to three budgets."""
    figure, axes = style.panels(curves)
    key: dict[str, str] = {}
    for curve, place in zip(curves, axes, strict=True):
        rows = style.spread(curve, len(STEPS))
        samples = run.samples(curve.strongest["cell"], ["eps_label", "flips"])
        colours = STEPS[-len(rows) :]
        layers = len(samples["flips"].iloc[0])
        highest = 0.0
        for number, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            flips = np.stack(samples.loc[samples["eps_label"] == row["eps_label"], "flips"].to_list())
            moved = flips.sum(1) / row["draws"]
            shares = _histogram(place, moved, layers, (number + 0.5) / len(rows), 1 / len(rows), colour)
            highest = max(highest, shares.max())
        null = curve.strongest["flip_rate_null"] * layers
        if curve.strongest["draws"] > 1:
            place.axvline(null, color=style.BLACK, linewidth=1.4, linestyle=(0, (3, 1.5)))
        style.percent_axis(place, 1.05 * highest)
        place.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        place.grid(axis="x", visible=False)
        style.two_lines(place, curve.contestant, attack_of(curve, budget=False))
        place.set_xlabel(f"units of {layers} that decide otherwise")
        key |= {row["eps_label"]: colour for row, colour in zip(rows, colours, strict=True)}
    axes[0].set_ylabel("images, %")
    handles: list[Artist] = [Patch(color=colour, label=f"ε = {label}") for label, colour in key.items()]
    if any(curve.strongest["draws"] > 1 for curve in curves):
        line = Line2D([], [], color=style.BLACK, linewidth=1.4, linestyle=(0, (3, 1.5)))
        line.set_label("mean of two draws without an attack")
        handles.append(line)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9.5)
    return figure


def _histogram(axes: Axes, moved: Array, layers: int, shift: float, width: float, colour: str) -> Array:
    """Shares of images by how many gates moved, drawn as one of several bars side by side; returns the shares."""
    step = -(-(layers + 1) // BARS)
    edges = np.arange(-0.5, layers + 0.5 + step, step)
    shares: Array = np.histogram(moved, edges)[0] / len(moved)
    used = np.flatnonzero(shares).max() + 1
    left = edges[:-1] + 0.1 * step + 0.8 * step * (shift - width / 2)
    axes.bar(left[:used], shares[:used], width=0.8 * step * width, align="edge", color=colour, linewidth=0)
    return shares
