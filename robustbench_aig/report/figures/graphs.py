"""What an attack did to whole graphs: how far those of single images moved, and how much harm passes through them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from robustbench_aig.report.figures import style
from robustbench_aig.report.figures.gates import AFTER, BEFORE, attack_of, telling
from robustbench_aig.report.run import Curve, Run

Array = npt.NDArray[np.float64]

STEPS = ("#F6C9A8", "#E68A4F", AFTER)
"""Three budgets from weak to strong."""

PARTS = {"neither": BEFORE, "gates": style.PURPLE, "features": style.ORANGE, "both": AFTER}
"""What of an image is attacked, and its colour."""

LABELS = {"neither": "neither (clean)", "gates": "gates alone", "features": "features alone", "both": "both"}

BARS = 30
"""Numbers of gates told apart on the axis; deeper networks share a bar between neighbours."""

GROUPS = 5
"""Budgets with bars of their own."""


def crossed(run: Run) -> list[Curve]:
    """The curves of :func:`telling` that have a mediation table."""
    return [curve for curve in telling(run) if "mediation_both" in run.measures(curve.strongest).index]


@style.styled
def distances(run: Run) -> Figure:
    """How many gates decide otherwise under the same noise, a panel per model and gating, at up to three budgets.

    Args:
        run: with at least one attacked model that has gates.
    """
    curves = telling(run)
    figure, axes = style.grid(len(curves), 2, 5.6 if len(curves) == 1 else 4.7, 3.1)
    key: dict[str, str] = {}
    for curve, place in zip(curves, axes, strict=True):
        rows = _spread(curve, len(STEPS))
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
        place.set_xlabel(f"gates of {layers} that decide otherwise")
        key |= {row["eps_label"]: colour for row, colour in zip(rows, colours, strict=True)}
    axes[0].set_ylabel("images, %")
    handles: list[Artist] = [Patch(color=colour, label=f"ε = {label}") for label, colour in key.items()]
    if any(curve.strongest["draws"] > 1 for curve in curves):
        line = Line2D([], [], color=style.BLACK, linewidth=1.4, linestyle=(0, (3, 1.5)))
        line.set_label("mean of two draws without an attack")
        handles.append(line)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9.5)
    return figure


@style.styled
def mediation(run: Run) -> Figure:
    """Accuracy where an attack may change features, gates, both or neither; a panel per model and gating.

    Args:
        run: with at least one curve of :func:`crossed`.
    """
    curves = crossed(run)
    figure, axes = style.grid(len(curves), 2, 5.6 if len(curves) == 1 else 4.7, 3.1)
    for curve, place in zip(curves, axes, strict=True):
        rows = _spread(curve, GROUPS)
        tables = [run.measures(row) for row in rows]
        for number, (part, colour) in enumerate(PARTS.items()):
            found = pd.concat([table.loc[[f"mediation_{part}"]] for table in tables])
            value, lo, hi = (found[name].to_numpy(float) for name in ("value", "lo", "hi"))
            at = np.arange(len(rows)) + (number - 1.5) * 0.2
            place.bar(at, value, width=0.19, color=colour, linewidth=0)
            whiskers = np.clip([value - lo, hi - value], 0, 1)
            place.errorbar(at, value, yerr=whiskers, fmt="none", ecolor=style.BLACK, elinewidth=0.9, capsize=0)
        place.set_xticks(range(len(rows)), [row["eps_label"] for row in rows])
        place.set_xlabel("perturbation ε")
        place.grid(axis="x", visible=False)
        style.percent_axis(place, 1.02)
        style.two_lines(place, curve.contestant, attack_of(curve, budget=False))
    axes[0].set_ylabel("accuracy, %")
    handles = [Patch(color=colour, label=LABELS[part]) for part, colour in PARTS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9.5, title="what is attacked")
    return figure


def _spread(curve: Curve, most: int) -> Sequence[pd.Series]:
    """Up to ``most`` attacked rows of a curve, spread over its epsilons, always with the largest."""
    attacked = curve.rows[curve.rows["eps"] > 0]
    count = min(most, len(attacked))
    chosen = np.unique(np.linspace(len(attacked) - 1, 0, count).round().astype(int))
    return [attacked.iloc[index] for index in chosen]


def _histogram(axes: Axes, moved: Array, layers: int, shift: float, width: float, colour: str) -> Array:
    """Shares of images by how many gates moved, drawn as one of several bars side by side; returns the shares."""
    step = -(-(layers + 1) // BARS)
    edges = np.arange(-0.5, layers + 0.5 + step, step)
    shares: Array = np.histogram(moved, edges)[0] / len(moved)
    used = np.flatnonzero(shares).max() + 1
    left = edges[:-1] + 0.1 * step + 0.8 * step * (shift - width / 2)
    axes.bar(left[:used], shares[:used], width=0.8 * step * width, align="edge", color=colour, linewidth=0)
    return shares
