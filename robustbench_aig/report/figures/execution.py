"""What every layer of a dynamic network does before and after an attack (the right side of the paper's Fig. 10)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustbench_aig.report.figures import style
from robustbench_aig.report.figures.style import AFTER, BEFORE
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.report.tables import attack_of


@style.figure(
    "execution",
    "Left: how often each unit is executed before and after the attack. Right: how many single decisions changed. "
    "Rates can stay where they are while every image takes another route.",
    of=lambda run: run.telling,
    grouped=True,
)
def execution(run: Run, curves: Sequence[Curve], group: str = "") -> Figure:
    """Left, the execution rate of every unit before and after; right, how many decisions flipped per image.

    Rates can stay where they are while every image takes another route, hence the right side. Its dashes are the null:
    how often two draws differ on the clean image.
    """
    group = group or run.group
    figure, axes = style.grid(2 * len(curves), 2, 4.7, 2.8)
    for number, curve in enumerate(curves):
        table = run.layers(curve, group)
        _rates(axes[2 * number], table)
        _flips(axes[2 * number + 1], table)
        axes[2 * number].set_title(curve.contestant)
        axes[2 * number + 1].set_title(attack_of(curve), fontweight="normal")
    for place in axes[-2:]:
        place.set_xlabel("unit")
    images = "all images" if group == "all" else f"images of {group}"
    _key(figure, images)
    return figure


def _rates(axes: Axes, table: pd.DataFrame) -> None:
    layer, before, after = (table[name].to_numpy() for name in ("layer", "rate_clean", "rate_adv"))
    axes.bar(layer, before, width=0.74, color=BEFORE, alpha=0.6, linewidth=0)
    # The interval belongs to the paired shift, so it is drawn around the rate before the attack plus that shift.
    lo, hi = (np.clip(before + table[name].to_numpy(), 0, 1) for name in ("lo", "hi"))
    whiskers = np.clip([after - lo, hi - after], 0, 1)
    axes.errorbar(layer, after, yerr=whiskers, fmt="o", color=AFTER, markersize=4, elinewidth=1.1, capsize=0)
    style.percent_axis(axes, 1.04)
    style.layer_axis(axes, list(layer))
    axes.set_ylabel("executed, %")


def _flips(axes: Axes, table: pd.DataFrame) -> None:
    layer, flips, null = (table[name].to_numpy() for name in ("layer", "flip_rate", "flip_rate_null"))
    axes.bar(layer, flips, width=0.74, color=AFTER, alpha=0.6, linewidth=0)
    axes.hlines(null, layer - 0.42, layer + 0.42, color=style.BLACK, linewidth=1.6)
    style.percent_axis(axes, max(0.1, 1.12 * float(max(flips.max(), null.max()))))
    style.layer_axis(axes, list(layer))
    axes.set_ylabel("flipped, %")


def _key(figure: Figure, images: str) -> None:
    handles = [
        Patch(color=BEFORE, alpha=0.6, label=f"before the attack ({images})"),
        Line2D([], [], color=AFTER, marker="o", linewidth=1.1, markersize=4, label="after, 95 % interval of the shift"),
        Patch(color=AFTER, alpha=0.6, label="flipped, same gate noise"),
        Line2D([], [], color=style.BLACK, linewidth=1.6, label="two draws without attack"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9.5)
