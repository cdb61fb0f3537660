"""Fig. 7: how execution rates part into key and less critical layers over the epochs of training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.experiments.study import Findings, short
from robustbench_aig.models import checkpoints
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.resnet import downsampling
from robustbench_aig.models.resolve import checkpoint_folder
from robustbench_aig.registry import register
from robustbench_aig.report.figures import style
from robustbench_aig.training.loop import HISTORY

LINES = {
    "downsampling layer": style.BLUE,
    "last layer": style.VERMILLION,
    "second last layer": style.ORANGE,
    "other layers": style.GREY,
}
"""The kinds of layers that the paper's figure tells apart."""


@dataclass(frozen=True)
class Log:
    """The training log of one checkpoint."""

    name: str
    card: Card
    blocks: list[str]
    epochs: list[dict[str, Any]]

    def kind(self, layer: int) -> str:
        """The legend entry of a layer, counted from 0."""
        if layer >= len(self.blocks) - 2:
            return "last layer" if layer == len(self.blocks) - 1 else "second last layer"
        return "downsampling layer" if downsampling(self.blocks[layer]) else "other layers"

    def targets(self) -> list[float]:
        """The target rate of every layer."""
        rates = self.card.recipe.get("target_rate", [])
        return list(rates) if isinstance(rates, list) else [float(rates)] * len(self.blocks)


@register("training", "execution rates over the epochs of training (Fig. 7)", reads="logs")
def analyze(models: Sequence[str]) -> Findings:
    """Execution rates of every layer by epoch, from the log beside a checkpoint.

    Args:
        models: zoo names, ``ARCHITECTURE@CHECKPOINT`` or checkpoint folders, as ``-m`` takes them.

    Raises:
        UsageError: a model that is no checkpoint of this suite, or has no gates.
        Prerequisite: there is no log beside it.
        UserError: the log is damaged.
    """
    logs = [read(model) for model in dict.fromkeys(models)]
    table = pd.concat([measure(log) for log in logs], ignore_index=True)
    last = table[table["epoch"] == table.groupby("model")["epoch"].transform("max")]
    return Findings(short(last), {"training": table}, {"training": draw(logs)})


def read(model: str) -> Log:
    """The training log of a checkpoint; errors are those of :func:`analyze`."""
    folder = checkpoint_folder(model)
    if folder is None:
        raise UsageError(f"'{model}' is no checkpoint of this suite, so it has no training log; train one of your own.")
    card = checkpoints.read_card(folder)
    with torch.device("meta"):
        network = card.build()
    if not is_dynamic(network):
        raise UsageError(f"model '{model}' decides nothing, so it runs every layer; choose a network with gates.")
    file = folder / HISTORY
    if not file.exists():
        raise Prerequisite(f"no training log at {file}; train the model with this suite, which writes one at the end.")
    try:
        epochs = json.loads(file.read_text())
        complete = bool(epochs) and all(len(row["rates"]) == len(network.layout) for row in epochs)
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise UserError(f"{file} is no training log of this model; restore it or train again.")
    return Log(model, card, list(network.layout.names), epochs)


def measure(log: Log) -> pd.DataFrame:
    """One row per epoch and layer: ``model, epoch, layer, block, kind, target, rate``."""
    targets = log.targets()
    rows = [
        [log.name, row["epoch"], layer + 1, block, log.kind(layer), targets[layer], row["rates"][layer]]
        for row in log.epochs
        for layer, block in enumerate(log.blocks)
    ]
    return pd.DataFrame(rows, columns=["model", "epoch", "layer", "block", "kind", "target", "rate"])


@style.styled
def draw(logs: Sequence[Log]) -> Figure:
    """Execution rate against epoch, a line per layer, a panel per model."""
    figure, places = style.grid(len(logs), 2, 5.6 if len(logs) == 1 else 4.6, 3.7)
    for log, axes in zip(logs, places, strict=True):
        _panel(axes, log)
    places[0].set_ylabel("frequency of execution, %")
    handles = [Line2D([], [], color=colour, linewidth=2, label=kind) for kind, colour in LINES.items()]
    handles.append(Line2D([], [], color=style.BLACK, linewidth=1, linestyle=(0, (1, 2)), label="target rate"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if len(logs) > 1 else 3, fontsize=9)
    return figure


def _panel(axes: Axes, log: Log) -> None:
    epochs = [row["epoch"] for row in log.epochs]
    for layer in sorted(range(len(log.blocks)), key=lambda layer: log.kind(layer) != "other layers"):
        rates = [row["rates"][layer] for row in log.epochs]
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, rates, color=LINES[log.kind(layer)], linewidth=1.7, marker=marker)
    for target in sorted(set(log.targets())):
        axes.axhline(target, color=style.BLACK, linewidth=1, linestyle=(0, (1, 2)))
    style.percent_axis(axes, 1.02)
    lowest = min(*log.targets(), *(min(row["rates"]) for row in log.epochs))
    axes.set_ylim(bottom=max(0.0, int(10 * lowest - 0.5) / 10))
    axes.set_title(log.name)
    axes.set_xlabel("training epoch")
