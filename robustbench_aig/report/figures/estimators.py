"""Estimators of the gradient through sampled gates: how near they come to the exact one for how many passes."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from robustbench_aig.report.figures import style

COLOURS = {
    "straight-through": style.BLUE,
    "score-function": style.GREEN,
    "local-expectation": style.PURPLE,
    "soft": style.ORANGE,
    "likeliest": style.SKY,
    "likely": style.VERMILLION,
    "exact": style.BLACK,
}


@style.styled
def fidelity(table: pd.DataFrame) -> Figure:
    """Cosine to the exact gradient against passes, a panel per model and objective; a line joins numbers of draws.

    Args:
        table: as :func:`robustbench_aig.experiments.estimators.study` makes it.
    """
    groups = list(table.groupby(["model", "objective"], sort=False))
    figure, axes = style.grid(len(groups), 2, 4.9, 3.4)
    for ((model, objective), rows), place in zip(groups, axes, strict=True):
        for estimator, part in rows.groupby("estimator", sort=False):
            passes = part["forwards"] + part["backwards"]
            ends = [part["cosine"] - part["cosine_lo"], part["cosine_hi"] - part["cosine"]]
            ends = [end.clip(lower=0).fillna(0) for end in ends]
            place.errorbar(
                passes,
                part["cosine"],
                yerr=ends,
                color=COLOURS[str(estimator)],
                marker="o" if len(part) > 1 else "D",
                markersize=5,
                linewidth=1.6,
                elinewidth=1,
                capsize=2,
                label=str(estimator),
            )
        place.set_xscale("log")
        place.xaxis.set_major_formatter(FuncFormatter(lambda passes, _: f"{passes:g}"))
        place.set_ylim(rows["cosine_lo"].min() - 0.03, 1.02)
        place.set_xlabel("forward and backward passes of one gradient")
        style.two_lines(place, str(model), f"{objective}, {int(rows['images'].iloc[0])} images")
    axes[0].set_ylabel("cosine to the exact gradient")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    return figure
