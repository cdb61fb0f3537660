"""Fig. 5: what the threshold of deterministic gates (Eq. 12) trades between error and computation."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustbench_aig.contracts.gating import Gating
from robustbench_aig.errors import UsageError
from robustbench_aig.experiments.costs import cost_of, error_axes
from robustbench_aig.experiments.study import Findings, Study, look, short
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style

THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@register("thresholds", "accuracy and multiply-adds at T = 0.1 … 0.9 (Fig. 5)")
def analyze(study: Study) -> Findings:
    """Error and multiply-adds of every gated model at thresholds 0.1 to 0.9; models without gates are points.

    Raises:
        UsageError: no model has gates.
    """
    if not any(model.layout for model in study.models):
        raise UsageError("none of the models has gates, so there is no threshold to vary; add a ConvNet-AIG with -m.")
    gatings = tuple(Gating("deterministic", threshold) for threshold in THRESHOLDS)
    rows = [
        {
            "model": seen.model.name,
            "threshold": seen.gating.threshold if seen.model.layout else None,
            **cost_of(seen, study.dataset.image_shape),
        }
        for seen in look(study, study.models, gatings)
    ]
    table = pd.DataFrame(rows)
    return Findings(short(table), {"thresholds": table}, {"thresholds": draw(table)})


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Error against multiply-adds, a line per model through its thresholds."""
    figure, (axes,) = style.grid(1, 1, 6.0, 4.2)
    plain = table[table["threshold"].isna()].sort_values("macs")
    if len(plain):
        bars = [plain["error"] - plain["error_lo"], plain["error_hi"] - plain["error"]]
        axes.errorbar(plain["macs"], plain["error"], yerr=bars, color=style.BLACK, marker="s", elinewidth=0.8)
    handles = [Line2D([], [], color=style.BLACK, marker="s", label="without gates")] if len(plain) else []
    for number, (model, rows) in enumerate(table[table["threshold"].notna()].groupby("model", sort=False)):
        colour = style.PALETTE[1 + number % (len(style.PALETTE) - 1)]
        bounds = [rows["error"] - rows["error_lo"], rows["error_hi"] - rows["error"]]
        axes.errorbar(rows["macs"], rows["error"], yerr=bounds, color=colour, marker="o", markersize=5, elinewidth=0.8)
        _label(axes, rows, colour)
        handles.append(Line2D([], [], color=colour, marker="o", label=str(model)))
    for _, row in plain.iterrows():
        axes.annotate(row["model"], (row["macs"], row["error"]), (6, 6), textcoords="offset points", fontsize=8.5)
    error_axes(axes)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=9)
    return figure


def _label(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    for _, row in rows[rows["threshold"].isin([0.1, 0.5, 0.9])].iterrows():
        text = f"T = {row['threshold']:g}"
        axes.annotate(text, (row["macs"], row["error"]), (7, 5), textcoords="offset points", fontsize=8, color=colour)
