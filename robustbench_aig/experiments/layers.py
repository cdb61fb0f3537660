"""Fig. 8: how many layers images execute, and which categories need fewer."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustbench_aig.experiments.study import Findings, Seen, Study, look, short
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style
from robustbench_aig.statistics.intervals import cluster_mean


@register("layers", "distribution of the number of executed layers, by category (Fig. 8)")
def analyze(study: Study) -> Findings:
    """Distribution of the number of executed layers over images, for all of them and by category.

    Where gates are sampled, every draw of an image counts as one run of it.

    Raises:
        UsageError: a model without gates, or a data set without categories.
    """
    models, groups = study.gated(), study.groups()
    seen = list(look(study, models, study.gatings))
    table = pd.concat([measure(one, study, ["all", *groups]) for one in seen], ignore_index=True)
    means = pd.concat([summarise(one, study, ["all", *groups]) for one in seen], ignore_index=True)
    return Findings(short(means), {"layers": table, "layers-mean": means}, {"layers": draw(seen, study, groups)})


def measure(seen: Seen, study: Study, groups: Sequence[str]) -> pd.DataFrame:
    """One row per group and number of layers: ``model, gating, group, executed, n, share``."""
    rows = []
    for group in groups:
        shares = _shares(seen, study.masks[group])
        images = int(study.masks[group].sum())
        rows += [[*seen.keys.values(), group, executed, images, share] for executed, share in enumerate(shares)]
    return pd.DataFrame(rows, columns=["model", "gating", "group", "executed", "n", "share"])


def summarise(seen: Seen, study: Study, groups: Sequence[str]) -> pd.DataFrame:
    """One row per group: ``layers`` of the model, ``mean`` executed ones with a 95 % interval over images, and ``sd``
    over images and draws."""
    rows = []
    for group in groups:
        opened = seen.scores.open[:, study.masks[group]]
        total = opened.shape[2]
        interval = cluster_mean(opened.mean((0, 2)))
        ends = [total * value for value in (interval.value, interval.lo, interval.hi)]
        rows.append([*seen.keys.values(), group, opened.shape[1], total, *ends, float(opened.sum(2).std())])
    return pd.DataFrame(rows, columns=["model", "gating", "group", "n", "layers", "mean", "lo", "hi", "sd"])


@style.styled
def draw(seen: Sequence[Seen], study: Study, groups: Sequence[str]) -> Figure:
    """Bars for all images, a line per category, a panel per model and gating; ticks on top mark the means."""
    figure, places = style.grid(len(seen), 2, 5.6 if len(seen) == 1 else 4.6, 3.5)
    for number, (one, axes) in enumerate(zip(seen, places, strict=True)):
        _panel(axes, one, study, groups)
        if number % 2 == 0:
            axes.set_ylabel("images, %")
    handles: list[Patch | Line2D] = [Patch(color=style.GREY, alpha=0.4, label="all images")]
    handles += [
        Line2D([], [], color=colour, marker="o", markersize=4, label=group)
        for group, colour in zip(groups, _colours(groups), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), fontsize=9)
    return figure


def _panel(axes: Axes, seen: Seen, study: Study, groups: Sequence[str]) -> None:
    every = _shares(seen, study.masks["all"])
    executed = np.arange(len(every))
    axes.bar(executed, every, width=0.86, color=style.GREY, alpha=0.4, linewidth=0)
    top = every.max()
    for group, colour in zip(groups, _colours(groups), strict=True):
        shares = _shares(seen, study.masks[group])
        axes.plot(executed, shares, color=colour, marker="o", markersize=4, linewidth=1.5)
        top = max(top, shares.max())
    for group, colour in zip(groups, _colours(groups), strict=True):
        axes.plot([executed @ _shares(seen, study.masks[group])], [1.16 * top], "v", color=colour, markersize=6)
    counts = seen.scores.open.sum(2)
    axes.set_title(f"{seen.name}\n{counts.mean():.2f} ± {counts.std():.2f} of {len(every) - 1} layers", fontsize=9.5)
    style.percent_axis(axes, 1.22 * top)
    lowest = int(np.flatnonzero(every)[0])
    axes.set_xlim(max(-0.6, lowest - 1.6), len(every) - 0.4)
    axes.set_xlabel("executed layers")


def _shares(seen: Seen, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    counts = seen.scores.open[:, mask].sum(2)
    return np.asarray(np.bincount(counts.reshape(-1), minlength=len(seen.model.units) + 1) / counts.size)


def _colours(groups: Sequence[str]) -> list[str]:
    return [style.PALETTE[1 + number % (len(style.PALETTE) - 1)] for number in range(len(groups))]
