"""All 2^L graphs of every image: how many of its gates must decide otherwise before its own pixels are misclassified.

Where no graph misclassifies an image, no attack through the gates alone can, whatever its budget: that is a proof.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure

from robustbench_aig.contracts.enumeration import enumerate_routes, require_enumerable
from robustbench_aig.contracts.margin import right
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.contracts.policy import Deterministic
from robustbench_aig.experiments.study import Findings, Study, short
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style
from robustbench_aig.statistics.measure import share

AT_ONCE = 8192
"""Images times graphs that are enumerated together."""

NONE = "none"


@register("graphs", "how many gates must flip before an image is misclassified, over all its graphs")
def analyze(study: Study) -> Findings:
    """Exact accuracy of both gatings, the share of images that every graph classifies correctly, and for the others how
    many gates the nearest misclassifying graph differs in.

    Raises:
        UsageError: a model has no gates, or more than can be enumerated.
    """
    rows, distances = [], []
    for model in study.gated():
        layout = model.layout
        require_enumerable(layout)
        assert layout is not None
        parts = list(_enumerated(study, model))
        nearest, wrong, chance = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        safe = share(np.isnan(nearest))
        rows.append(
            {
                "model": model.name,
                "images": len(nearest),
                "graphs": layout.count,
                "deterministic": float((nearest != 0).mean()),
                "stochastic": float(1 - chance.mean()),
                "wrong_graphs": float(wrong.mean()),
                "every_graph_right": safe.value,
                "lo": safe.lo,
                "hi": safe.hi,
            }
        )
        counts = [(str(flips), int((nearest == flips).sum())) for flips in range(len(layout.decisions) + 1)]
        for flips, images in [*counts, (NONE, int(np.isnan(nearest).sum()))]:
            distances.append({"model": model.name, "flips": flips, "images": images, "share": images / len(nearest)})
    table, reach = pd.DataFrame(rows), pd.DataFrame(distances)
    return Findings(short(table), {"graphs": reach, "graphs-models": table}, {"graphs": draw(reach)})


@torch.no_grad()
def _enumerated(study: Study, model: Classifier) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """Per image: flips to the nearest misclassifying graph (NaN without one), share of graphs that misclassify, and the
    chance that sampled gates draw one of them."""
    data = study.dataset
    study.progress.start(len(data), model.name)
    network, layout = model.network, model.layout
    assert is_dynamic(network)
    assert layout is not None
    for rows in torch.arange(len(data)).split(max(1, AT_ONCE // layout.count)):
        images = data.images(rows).to(study.device, memory_format=torch.channels_last)
        every = enumerate_routes(network, images)
        wrong = ~right(every.logits, data.labels[rows].to(study.device))
        graph = network.traced(images, Deterministic())[1].open > 0.5
        changes = layout.changes(graph[None].cpu().numpy(), (every.trace.open > 0.5).cpu().numpy())[0]
        flips = torch.from_numpy(np.ceil(changes).sum(2)).to(wrong.device).masked_fill(~wrong, torch.inf).amin(0)
        nearest = flips.double().masked_fill(flips.isinf(), torch.nan)
        chance = (every.log_prob.double().exp() * wrong).sum(0)
        yield nearest.cpu().numpy(), wrong.double().mean(0).cpu().numpy(), chance.cpu().numpy()
        study.progress.advance(len(rows))


@style.styled
def draw(reach: pd.DataFrame) -> Figure:
    """Share of images by the number of gates that the nearest misclassifying graph differs in, a panel per model."""
    groups = list(reach.groupby("model", sort=False))
    figure, axes = style.grid(len(groups), 2, 5.6 if len(groups) == 1 else 4.7, 3.2)
    for (model, rows), place in zip(groups, axes, strict=True):
        colours = [style.GREY, *[style.VERMILLION] * (len(rows) - 2), style.BLUE]
        place.bar(range(len(rows)), rows["share"], color=colours)
        names = ["already\nwrong", *rows["flips"].iloc[1:-1], "no graph\nis wrong"]
        place.set_xticks(range(len(rows)), names, fontsize=8.5)
        place.grid(axis="x", visible=False)
        style.percent_axis(place, 1.08 * rows["share"].max())
        place.set_title(str(model))
        place.set_xlabel("gates that must flip before the clean pixels are misclassified")
    axes[0].set_ylabel("images, %")
    return figure
