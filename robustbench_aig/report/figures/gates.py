"""What an attack did to the gates: execution rates (the right side of the paper's Fig. 10), flips, and compute."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from robustbench_aig.report import text
from robustbench_aig.report.figures import style
from robustbench_aig.report.run import Curve, Run

BEFORE, AFTER = style.SKY, style.VERMILLION


def telling(run: Run) -> list[Curve]:
    """For each model and gating with gates, the attack that lowered accuracy most; undefended where there is one."""
    chosen: dict[str, Curve] = {}
    for curve in run.curves:
        if pd.isna(curve.strongest["exec_rate_adv"]):
            continue
        best = chosen.get(curve.contestant)
        if best is None or _order(curve) < _order(best):
            chosen[curve.contestant] = curve
    return list(chosen.values())


def group_shown(run: Run) -> str:
    """The group of images that the execution figure shows: the paper's birds where the data has them, otherwise all."""
    return "birds" if "birds" in set(run.execution["group"]) else "all"


def layers(run: Run, curve: Curve, group: str) -> pd.DataFrame:
    """The rows of ``execution.csv`` of a curve's largest epsilon, one per gated block."""
    table = run.execution
    same = [
        table[name] == getattr(curve, name)
        for name in ("model", "gating", "defense", "attack", "attacker", "norm", "seed")
    ]
    same += [table["group"] == group, table["eps"] == curve.strongest["eps"]]
    return table[np.logical_and.reduce(same)].sort_values("layer")


@style.styled
def execution(run: Run, group: str | None = None, curves: Sequence[Curve] | None = None) -> Figure:
    """Left, the execution rate of every gated block before and after; right, how many decisions flipped per image.

    Rates can stay where they are while every image takes another route, hence the right side. Its dashes are the null:
    how often two draws differ on the clean image.

    Args:
        run: with at least one attacked model that has gates.
        group: of images, as in ``execution.csv``; :func:`group_shown` by default.
        curves: the attacks to show, a row each; :func:`telling` by default.
    """
    group = group or group_shown(run)
    curves = telling(run) if curves is None else curves
    figure, axes = style.grid(2 * len(curves), 2, 4.7, 2.8)
    for number, curve in enumerate(curves):
        table = layers(run, curve, group)
        _rates(axes[2 * number], table)
        _flips(axes[2 * number + 1], table)
        axes[2 * number].set_title(curve.contestant)
        axes[2 * number + 1].set_title(attack_of(curve), fontweight="normal")
    for place in axes[-2:]:
        place.set_xlabel("gated block")
    images = "all images" if group == "all" else f"images of {group}"
    _key(figure, images)
    return figure


@style.styled
def compute(run: Run) -> Figure:
    """Distribution of multiply-adds per image before and after the attack, one panel per model and gating.

    Args:
        run: with at least one attacked model that has gates.
    """
    curves = telling(run)
    figure, axes = style.grid(len(curves), 2, 5.6 if len(curves) == 1 else 4.7, 3.1)
    for curve, place in zip(curves, axes, strict=True):
        row = curve.strongest
        samples = run.samples(row["cell"], ["eps_label", "macs_clean", "macs_adv"])
        samples = samples[samples["eps_label"] == row["eps_label"]]
        for column, colour, width in (("macs_clean", BEFORE, 4.0), ("macs_adv", AFTER, 1.6)):
            place.ecdf(samples[column].to_numpy(), color=colour, linewidth=width)
            place.axvline(samples[column].mean(), color=colour, linewidth=0.4 + 0.5 * width, linestyle=(0, (3, 1.5)))
        style.percent_axis(place, 1.02)
        place.xaxis.set_major_locator(MaxNLocator(6))
        place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.macs(value)))
        style.two_lines(place, curve.contestant, attack_of(curve))
        place.set_xlabel("multiply-adds per image")
    axes[0].set_ylabel("images at or below, %")
    handles = [
        Line2D([], [], color=BEFORE, linewidth=4.0, label="before the attack"),
        Line2D([], [], color=AFTER, linewidth=1.6, label="after"),
        Line2D([], [], color=style.GREY, linewidth=1.4, linestyle=(0, (3, 1.5)), label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5)
    return figure


def attack_of(curve: Curve, budget: bool = True) -> str:
    """The attack of a curve, as in ``fgsm, static, L∞ 8/255``, or without its largest epsilon."""
    row = curve.strongest
    return f"{curve.attack}, {curve.attacker}, {text.budget(row) if budget else text.norm(row['norm'])}"


def _order(curve: Curve) -> tuple[bool, float]:
    return curve.defense != "none", float(curve.strongest["accuracy"])


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
