"""How much of the harm of an attack passes through the decisions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from robustbench_aig.report.figures import style
from robustbench_aig.report.run import Curve, Run
from robustbench_aig.report.tables import attack_of

PARTS = {"neither": style.BEFORE, "gates": style.PURPLE, "features": style.ORANGE, "both": style.AFTER}
"""What of an image is attacked, and its colour."""

LABELS = {"neither": "neither (clean)", "gates": "gates alone", "features": "features alone", "both": "both"}

GROUPS = 5
"""Budgets with bars of their own."""


@style.figure(
    "mediation",
    "Accuracy when features come from one image and the graph from the other. What gates alone take away passes "
    "through them; where both do better than features alone, the moved gates repair.",
    of=lambda run: [curve for curve in run.telling if "mediation_both" in run.measures(curve.strongest).index],
)
def mediation(run: Run, curves: Sequence[Curve]) -> Figure:
    """Accuracy where an attack may change features, gates, both or neither; a panel per model and gating."""
    figure, axes = style.panels(curves)
    for curve, place in zip(curves, axes, strict=True):
        rows = style.spread(curve, GROUPS)
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
