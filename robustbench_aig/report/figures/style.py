"""How every figure looks: fonts, colours that colour-blind readers can tell apart, and files of constant bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter

from robustbench_aig.files import write_atomically
from robustbench_aig.report.run import Curve, Run

# Okabe and Ito (2008).
BLACK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#333333",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
PALETTE = (BLACK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
GREY = "#8A8F98"
BEFORE, AFTER = SKY, VERMILLION
"""An attack."""
MARKERS = {"none": "s", "stochastic": "o", "deterministic": "^", "expected": "D"}
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.6)), (0, (6, 2, 1.5, 2)))

DPI = 200

_P = ParamSpec("_P")
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": "#4A4F57",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E6EA",
    "grid.linewidth": 0.8,
    "xtick.color": "#4A4F57",
    "ytick.color": "#4A4F57",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # names of models, classes and runs may hold dollars
}


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Draw a figure in the house style, whatever the caller's own matplotlib settings are."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn


@dataclass(frozen=True)
class Entry:
    """A figure of a run.

    Attributes:
        caption: what it shows.
        draw: from the run and the curves to show to the figure.
        of: the curves that it shows; it is not drawn where there are none.
        grouped: whether it shows a group of images, which ``draw`` then takes too.
    """

    caption: str
    draw: Callable[..., Figure]
    of: Callable[[Run], Sequence[Curve]]
    grouped: bool = False


FIGURES: dict[str, Entry] = {}


def figure(
    name: str, caption: str, of: Callable[[Run], Sequence[Curve]], grouped: bool = False
) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Add the function below to the figures of a run, in the house style; arguments as of :class:`Entry`."""

    def add(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        FIGURES[name] = Entry(caption, styled(draw), of, grouped)
        return FIGURES[name].draw

    return add


def panels(curves: Sequence[Curve]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of some curves."""
    return grid(len(curves), 2, 5.6 if len(curves) == 1 else 4.7, 3.1)


def grid(panels: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``panels`` axes in rows of ``columns``; each is ``width`` by ``height`` inches."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03)
    figure = Figure(figsize=(columns * width, rows * height), layout=layout)
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(panels)]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG whose bytes depend on the figure only; returns the path.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return path


def epsilon_axis(axes: Axes, rows: pd.DataFrame) -> None:
    """Put the epsilons of ``rows`` on the x axis, by their labels, leaving out those that would touch."""
    ticks = rows.drop_duplicates("eps_label").sort_values("eps")
    eps, labels = list(ticks["eps"]), list(ticks["eps_label"])
    apart = (eps[-1] - eps[0]) / 7
    shown = _apart(eps, apart)
    axes.set_xticks([eps[i] for i in shown], [labels[i] for i in shown])
    margin = 0.02 * (eps[-1] - eps[0])
    axes.set_xlim(eps[0] - margin, eps[-1] + margin)


def percent_axis(axes: Axes, top: float = 1.0) -> None:
    """A y axis of fractions shown in per cent, from 0."""
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def two_lines(axes: Axes, title: str, below: str) -> None:
    """A bold title with a plain line below it."""
    axes.set_title(f"{title}\n")
    axes.text(0, 1.03, below, transform=axes.transAxes)


def layer_axis(axes: Axes, layers: Sequence[int]) -> None:
    """An x axis of block numbers, at most about 18 of them labelled."""
    step = -(-len(layers) // 18)
    axes.xaxis.set_major_locator(FixedLocator(list(layers[::step])))
    axes.set_xlim(layers[0] - 0.7, layers[-1] + 0.7)
    axes.grid(axis="x", visible=False)


def _apart(values: Sequence[float], distance: float) -> list[int]:
    """Indices of ascending values at least ``distance`` apart, always with the first and the last."""
    shown = [len(values) - 1]
    for index in range(len(values) - 2, 0, -1):
        if min(values[shown[-1]] - values[index], values[index] - values[0]) >= distance - 1e-12:
            shown.append(index)
    return [0, *reversed(shown)]


def spread(curve: Curve, most: int) -> Sequence[pd.Series]:
    """Up to ``most`` attacked rows of a curve, spread over its epsilons, always with the largest."""
    attacked = curve.attacked
    count = min(most, len(attacked))
    chosen = np.unique(np.linspace(len(attacked) - 1, 0, count).round().astype(int))
    return [attacked.iloc[index] for index in chosen]
