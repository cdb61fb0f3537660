"""Accuracy against the strength of the attack: the left side of the paper's Fig. 10, with bands and chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustbench_aig.report import text
from robustbench_aig.report.figures import style
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.statistics.comparisons import simultaneous_band

CROWDED = 6
"""Curves in one panel beyond which each defence gets a panel of its own."""


@dataclass(frozen=True)
class _Panel:
    title: str
    below: str
    curves: list[Curve]


@style.figure(
    "accuracy",
    "Accuracy against the strength of the attack. Each band holds its whole curve with 95 % confidence; the dotted "
    "line is guessing.",
    of=lambda run: run.curves,
)
def accuracy(run: Run, curves: Sequence[Curve]) -> Figure:
    """One panel per attack and attacker (and defence, where there are many curves), a colour per model and gating.

    Defences are dashed. A band holds its whole curve with 95 % confidence; it is the image that is resampled.
    """
    panels = _panels(curves)
    colours = {
        name: style.PALETTE[number % len(style.PALETTE)] for number, name in enumerate(_unique(curves, "contestant"))
    }
    dashes = {name: style.DASHES[number % len(style.DASHES)] for number, name in enumerate(_unique(curves, "defense"))}
    columns = 2 if len(panels) in (2, 4) else 3
    figure, axes = style.grid(len(panels), columns, 5.6 if len(panels) == 1 else 4.6, 3.7)
    for number, (panel, place) in enumerate(zip(panels, axes, strict=True)):
        for curve in panel.curves:
            _draw(run, curve, place, colours[curve.contestant], dashes[curve.defense])
        if run.classes:
            place.axhline(1 / run.classes, color=style.GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        style.epsilon_axis(place, panel.curves[0].rows)
        style.percent_axis(place, 1.02)
        style.two_lines(place, panel.title, panel.below)
        place.set_xlabel(f"perturbation ε ({text.norm(panel.curves[0].norm)}, pixel values in [0, 1])")
        if number % columns == 0:
            place.set_ylabel("accuracy, %")
    _legend(run, curves, figure, colours, dashes)
    return figure


def _panels(every: Sequence[Curve]) -> list[_Panel]:
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in every:
        groups.setdefault((curve.attack, curve.attacker, curve.norm), []).append(curve)
    panels = []
    for (attack, attacker, norm), curves in groups.items():
        below = f"{attacker} attacker" + (f", {text.norm(norm)}" if len(_unique(every, "norm")) > 1 else "")
        if len(curves) <= CROWDED:
            panels.append(_Panel(attack, below, curves))
            continue
        for defense in dict.fromkeys(curve.defense for curve in curves):
            own = [curve for curve in curves if curve.defense == defense]
            panels.append(_Panel(attack, f"{below} · {text.defense(defense)}", own))
    return panels


def _draw(run: Run, curve: Curve, axes: Axes, colour: str, dash: Any) -> None:
    eps = curve.rows["eps"].to_numpy()
    lo, hi = simultaneous_band(run.counts(curve).to_numpy(), int(curve.strongest["draws"]), seed=0)
    axes.fill_between(eps, lo, hi, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        eps,
        curve.rows["accuracy"].to_numpy(),
        color=colour,
        linestyle=dash,
        linewidth=1.8,
        marker=style.MARKERS.get(curve.gating.partition(":")[0], "o"),
        clip_on=False,
        markersize=4.5,
        markerfacecolor=colour if curve.defense == "none" else "white",
        markeredgecolor=colour,
    )


def _legend(run: Run, curves: Sequence[Curve], figure: Figure, colours: dict[str, str], dashes: dict[str, Any]) -> None:
    gating = {curve.contestant: curve.gating.partition(":")[0] for curve in curves}
    handles = [
        Line2D([], [], color=colour, linewidth=2, marker=style.MARKERS.get(gating[name], "o"), markersize=5, label=name)
        for name, colour in colours.items()
    ]
    if len(dashes) > 1:
        handles += [
            Line2D([], [], color=style.GREY, linewidth=1.8, linestyle=dash, label=text.defense(name))
            for name, dash in dashes.items()
        ]
    if run.classes:
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=1, linestyle=(0, (1, 2)), label=f"chance, 1/{run.classes}")
        )
    widest = 0.6 + 0.07 * max(len(str(handle.get_label())) for handle in handles)  # inches, at this font size
    fitting = max(1, int(figure.get_figwidth() / widest))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(fitting, 6, len(handles)), fontsize=9.5)


def _unique(curves: Sequence[Curve], name: str) -> list[str]:
    return list(dict.fromkeys(getattr(curve, name) for curve in curves))
