"""Tables 1 and 2 and Fig. 4: error against what a network costs, with the paper's figures beside."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from robustbench_aig.experiments.study import Findings, Seen, Study, look, short
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.models.macs import full_macs
from robustbench_aig.models.paper import find
from robustbench_aig.registry import register
from robustbench_aig.report import text
from robustbench_aig.report.figures import style
from robustbench_aig.statistics.intervals import accuracy

COLOURS = {
    "none": style.BLACK,
    "stochastic": style.GREEN,
    "deterministic": style.VERMILLION,
    "expected": style.PURPLE,
}
"""The paper's colours: ResNets black, stochastic inference green, deterministic red."""


@register("costs", "error against multiply-adds of several models (Tables 1 and 2, Fig. 4)")
def analyze(study: Study) -> Findings:
    """Error, parameters and multiply-adds of every model under every gating."""
    rows = [row(seen, study) for seen in look(study, study.models, study.gatings)]
    table = pd.DataFrame(rows)
    shown = table[["model", "gating", "target_rate", "n", "error", "error_lo", "error_hi", "parameters", "macs"]]
    return Findings(short(shown), {"costs": table}, {"costs": draw(table)})


def row(seen: Seen, study: Study) -> dict[str, Any]:
    """What the tables say of one system, with the paper's row for it where it has one."""
    card = seen.model.card
    recipe = card.recipe if card else {}
    published = find(card.architecture, seen.gating.kind, recipe) if card else None
    shape = study.dataset.image_shape
    return {
        **seen.keys,
        "architecture": seen.model.architecture,
        "target_rate": _target(recipe) if seen.model.layout else None,
        "gates": recipe.get("gates") if seen.model.layout else None,
        "epochs": card.epochs if card else None,
        **cost_of(seen, shape),
        "parameters": parameters(seen.model),
        "paper_error": published and published.error,
        "paper_parameters_millions": published and published.parameters_millions,
        "paper_gmacs": published and published.gmacs,
    }


def cost_of(seen: Seen, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Error with a 95 % interval over images, share of executed layers, and mean multiply-adds of an image.

    ``macs`` is missing for a network whose parts are not known.
    """
    found = accuracy(seen.scores.correct.sum(0), seen.draws)
    gated = seen.model.layout is not None
    return {
        "n": len(seen.scores.vote),
        "draws": seen.draws,
        "error": 1 - found.value,
        "error_lo": 1 - found.hi,
        "error_hi": 1 - found.lo,
        "executed": float(seen.scores.open.mean()) if gated else 1.0,
        "macs": float(seen.scores.macs.mean()) if gated else full_macs(seen.model.network, image_shape),
    }


def parameters(model: Classifier) -> int:
    """Trainable parameters; of an architecture of this suite as trained, before BatchNorm is folded for evaluation."""
    network = model.network if model.card is None else model.card.build()
    return sum(parameter.numel() for parameter in network.parameters())


def _target(recipe: dict[str, Any]) -> float | None:
    rates = recipe.get("target_rate")
    return float(np.median(rates)) if rates is not None else None


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Error against multiply-adds; a line joins the target rates of one architecture, gate form and gating."""
    figure, (axes,) = style.grid(1, 1, 6.4, 4.6)
    known = table[table["macs"].notna()]
    family = known["architecture"].where(known["gating"] != "none", "")
    for (_, gates, gating), rows in known.groupby([family, known["gates"].fillna(""), "gating"], sort=False):
        _line(axes, rows.sort_values("macs"), str(gating).partition(":")[0], gates == "soft")
    error_axes(axes)
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in known["gating"]))
    names = {"none": "without gates", "expected": "expected (AIG*)"}
    handles = [
        Line2D([], [], color=COLOURS[kind], marker=style.MARKERS[kind], label=names.get(kind, kind)) for kind in kinds
    ]
    if (known["gates"] == "soft").any():
        handles.append(
            Line2D([], [], color=style.GREY, marker="o", markerfacecolor="white", linestyle="--", label="soft gates")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=9)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, gating: str, soft: bool) -> None:
    bounds = [rows["error"] - rows["error_lo"], rows["error_hi"] - rows["error"]]
    joined = gating != "none" and len(rows) > 1
    axes.errorbar(
        rows["macs"],
        rows["error"],
        yerr=np.clip(bounds, 0, None),
        color=COLOURS[gating],
        marker=style.MARKERS[gating],
        markerfacecolor="white" if soft else COLOURS[gating],
        linestyle="--" if soft and joined else "-" if joined else "",
        markersize=6,
        linewidth=1.4,
        elinewidth=0.8,
    )
    for _, row in rows.iterrows():
        name = row["model"] if gating == "none" or pd.isna(row["target_rate"]) else f"t = {row['target_rate']:g}"
        axes.annotate(name, (row["macs"], row["error"]), (7, 5), textcoords="offset points", fontsize=8)


def error_axes(axes: Axes) -> None:
    """Multiply-adds to the right, error in per cent upwards."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.macs(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("multiply-adds per image")
    axes.set_ylabel("top-1 error, %")
