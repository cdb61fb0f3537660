"""Fig. 9: the images of a category that use the fewest and the most layers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure

from robustbench_aig.experiments.study import Findings, Seen, Study, look, short
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style

SHOWN = 8
"""Images at either end."""

ENDS = ("fewest", "most")


@register("extremes", "the images that use the fewest and the most layers (Fig. 9)")
def analyze(study: Study) -> Findings:
    """The images with the fewest and the most executed layers, for every category, as a contact sheet.

    Raises:
        UsageError: a model without gates, or a data set without categories.
    """
    models, groups = study.gated(), study.groups()
    seen = list(look(study, models, study.gatings))
    table = pd.concat([measure(one, study, groups) for one in seen], ignore_index=True)
    ends = table.groupby(["model", "gating", "group", "end"], sort=False)
    shown = ends[["executed", "correct"]].mean().reset_index()
    return Findings(short(shown), {"extremes": table}, {"extremes": draw(seen, study, table)})


def measure(seen: Seen, study: Study, groups: Sequence[str]) -> pd.DataFrame:
    """One row per image shown.

    Columns: ``model, gating, group, end, rank, id, class, executed, expected, correct``: layers executed (mean over
    draws), the sum of the gates' opening probabilities, which breaks ties, and the share of correct draws.
    """
    executed, expected = seen.rates.sum(1), seen.scores.prob.sum(1)
    classes = np.array(study.dataset.classes, dtype=object)[study.labels]
    parts = []
    for group in groups:
        for end in ENDS:
            rows = _extreme(executed, expected, np.flatnonzero(study.masks[group]), end)
            columns = {
                **seen.keys,
                "group": group,
                "end": end,
                "rank": np.arange(1, len(rows) + 1),
                "id": study.dataset.ids.numpy()[rows],
                "class": classes[rows],
                "executed": executed[rows],
                "expected": expected[rows],
                "correct": seen.accuracy[rows],
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _extreme(
    executed: npt.NDArray[np.float64], expected: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], end: str
) -> npt.NDArray[np.int64]:
    """The rows at one end, the most extreme first; a category with few images is split evenly."""
    order = rows[np.lexsort((expected[rows], np.round(executed[rows], 9)))]
    most = min(SHOWN, len(rows) // 2) or 1
    return order[:most] if end == "fewest" else order[::-1][:most]


@style.styled
def draw(seen: Sequence[Seen], study: Study, table: pd.DataFrame) -> Figure:
    """Two rows of images per category, fewest layers above most, each with its number of layers."""
    blocks = list(table.groupby(["model", "gating", "group", "end"], sort=False))
    side = 0.78
    figure, places = style.grid(SHOWN * len(blocks), SHOWN, side, side * 1.5)
    names = {(one.model.name, one.gating.name): one.name for one in seen}
    position = {int(number): row for row, number in enumerate(study.dataset.ids)}
    for number, ((model, gating, group, end), part) in enumerate(blocks):
        strip = places[SHOWN * number : SHOWN * (number + 1)]
        pixels = study.dataset.uint8(torch.tensor([position[identity] for identity in part["id"]]))
        for axes in strip:
            axes.axis("off")
        for axes, image, executed in zip(strip, pixels, part["executed"], strict=False):
            axes.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=255)
            axes.text(0.5, -0.04, f"{executed:.3g}", transform=axes.transAxes, ha="center", va="top", fontsize=7)
        title = strip[0].text(0, 1.08, f"{end} layers", transform=strip[0].transAxes, fontsize=8, va="bottom")
        if end == ENDS[0]:
            title.set_text(f"{names[str(model), str(gating)]}, {group}: {end} layers")
            title.set_fontweight("bold")
        title.set_in_layout(False)
    return figure
