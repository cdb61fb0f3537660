"""Fig. 6: how often each layer runs for each class, with the classes sorted by category."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from robustbench_aig.experiments.study import Findings, Seen, Study, look, short
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style
from robustbench_aig.statistics.intervals import cluster_mean

FEW_CLASSES = 40
"""Up to this many classes are named one by one."""

OTHERS = "others"

Row = tuple[int, str, str]
"""A class: its number, high-level and mid-level category."""


@register("rates", "how often each layer runs for each class, classes by category (Fig. 6)")
def analyze(study: Study) -> Findings:
    """Execution rate of every layer by class and category, one heat map per model and gating.

    Raises:
        UsageError: a model without gates, or a data set without categories.
    """
    models, categories = study.gated(), study.groups()
    seen = list(look(study, models, study.gatings))
    table = pd.concat([measure(one, study) for one in seen], ignore_index=True)
    kept = table[table["group"].isin(["all", *categories])]
    shown = kept.pivot_table(index=["model", "gating", "group"], columns="layer", values="rate", sort=False)
    order = arrange(study.labels, study.dataset.categories)
    return Findings(short(shown.reset_index()), {"rates": table}, {"rates": draw(seen, study, order)})


def measure(seen: Seen, study: Study) -> pd.DataFrame:
    """One row per group of images and layer, with a 95 % interval over images.

    Columns: ``model, gating, kind`` (all, category or class), ``group, layer, block, downsampling, n, rate, lo, hi``.
    """
    rows = []
    for group, mask in study.masks.items():
        kind = "all" if group == "all" else "category" if group in study.dataset.categories else "class"
        shares = seen.rates[mask]
        for layer, block in enumerate(seen.model.units):
            interval = cluster_mean(shares[:, layer])
            values = (interval.value, interval.lo, interval.hi)
            rows.append(
                [*seen.keys.values(), kind, group, layer + 1, block, seen.downsampling[layer], len(shares), *values]
            )
    names = ["model", "gating", "kind", "group", "layer", "block", "downsampling", "n", "rate", "lo", "hi"]
    return pd.DataFrame(rows, columns=names)


def arrange(labels: npt.NDArray[np.int64], categories: Mapping[str, Sequence[int]]) -> list[Row]:
    """The classes that have images, sorted by high-level and then mid-level category.

    A class's high-level category is the largest that holds it, its mid-level category the smallest; where the two are
    one while others of its members have a mid-level category, the mid-level one is called ``other …``.

    Returns:
        Per class: its number, high-level and mid-level category.
    """
    names = list(categories)
    found: list[tuple[int, int, int]] = []
    for number in np.unique(labels):
        holding = [index for index, name in enumerate(names) if number in categories[name]]
        high = max(holding, key=lambda index: len(categories[names[index]]), default=len(names))
        mid = min(holding, key=lambda index: len(categories[names[index]]), default=len(names))
        found.append((high, mid, int(number)))
    divided = {high for high, mid, _ in found if high != mid}
    # What is left of a divided category comes after its parts, as in the paper's figure.
    found.sort(key=lambda row: (row[0], row[0] == row[1], row[1], row[2]))
    names.append(OTHERS)
    return [
        (number, names[high], f"other {names[high]}" if high == mid and high in divided else names[mid])
        for high, mid, number in found
    ]


@style.styled
def draw(seen: Sequence[Seen], study: Study, order: Sequence[Row]) -> Figure:
    """Layers from left to right, classes from top to bottom, dark where a layer runs for all images of a class."""
    height = max(3.2, min(9.0, 1.6 + 0.24 * len(order)))
    widths = [max(2.6, 0.9 + 0.24 * len(one.model.units)) for one in seen]
    figure, places = style.grid(len(seen), len(seen), (sum(widths) + 2.6) / len(seen), height)
    for number, (one, axes) in enumerate(zip(seen, places, strict=True)):
        matrix = np.stack([one.rates[study.labels == label].mean(0) for label, _, _ in order])
        image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        _axes(axes, one, order, study.dataset.classes if number == 0 else None)
    _categories(places[-1], figure, order)
    bar = figure.colorbar(image, ax=places, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("share of images for which the layer runs")
    return figure


def _axes(axes: Axes, seen: Seen, order: Sequence[Row], classes: Sequence[str] | None) -> None:
    axes.set_title(seen.name + "\n", fontsize=9.5)
    axes.set_xlabel("residual layer  (▼ downsampling)")
    step = -(-len(seen.model.units) // 18)
    axes.set_xticks(
        range(0, len(seen.model.units), step), [str(layer + 1) for layer in range(0, len(seen.model.units), step)]
    )
    for layer, halves in enumerate(seen.downsampling):
        if halves:
            axes.text(layer, -0.5, "▼", ha="center", va="bottom", fontsize=8, color=style.VERMILLION)
    names = [classes[number] for number, _, _ in order] if classes and len(order) <= FEW_CLASSES else []
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    for row in _ends(order, 2)[:-1]:
        axes.axhline(row - 0.5, color="white", linewidth=2.2)


def _categories(axes: Axes, figure: Figure, order: Sequence[Row]) -> None:
    """Name the categories to the right of the last panel: the mid-level ones beside it, the high-level ones outside."""

    def beside(inches: float) -> Transform:
        return axes.get_yaxis_transform() + ScaledTranslation(inches, 0, figure.dpi_scale_trans)

    def column(level: Literal[1, 2], inches: float, rotation: int) -> None:
        start = 0
        for end in _ends(order, level):
            ends, middle = [start - 0.35, end - 0.65], (start + end - 1) / 2
            axes.plot([1, 1], ends, color=style.GREY, linewidth=1.4, clip_on=False, transform=beside(inches))
            place = beside(inches + 0.06)
            axes.text(1, middle, order[start][level], transform=place, va="center", fontsize=8.5, rotation=rotation)
            start = end

    column(2, 0.1, 0)
    if any(high != mid for _, high, mid in order):
        column(1, 0.3 + 0.075 * max(len(mid) for _, _, mid in order), 270)


def _ends(order: Sequence[Row], level: Literal[1, 2]) -> list[int]:
    """One past the last row of each run of classes that share a category."""
    sizes = [len(list(run)) for _, run in groupby(order, key=lambda row: row[1 : level + 1])]
    return [int(end) for end in np.cumsum(sizes)]
