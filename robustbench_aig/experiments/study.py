"""What an experiment is given, and how it looks at images through a model: verdicts and executed layers per draw."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure

from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.engine.scoring import score
from robustbench_aig.errors import UsageError, unknown
from robustbench_aig.gates import execution
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.models.resnet import downsampling
from robustbench_aig.progress import Progress, Silent
from robustbench_aig.report.run import contestant

PIXELS_PER_BATCH = 1 << 20


@dataclass(frozen=True)
class Study:
    """Models, images and settings of one experiment.

    Attributes:
        models: in the order of the figures.
        dataset: the images.
        gatings: how the gates of models that have some decide.
        draws: gate draws per image where they are sampled.
        seed: of the draws.
        device: where the models are.
        categories: groups of images to show; all of the data set's if empty.
        runs: folders of sweeps, for statements about attacks.
        progress: told of every batch.
    """

    models: list[Classifier]
    dataset: Dataset
    gatings: tuple[Gating, ...] = (Gating("deterministic"), Gating("stochastic"))
    draws: int = 10
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    categories: tuple[str, ...] = ()
    runs: tuple[Path, ...] = ()
    progress: Progress = field(default_factory=Silent)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) of the images."""
        return self.dataset.labels.numpy()

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """``all``, every category and every class that has images, as masks (N,)."""
        return execution.groups(self.labels, self.dataset.classes, self.dataset.categories)

    def gated(self) -> list[Classifier]:
        """The models, all of which must have gates.

        Raises:
            UsageError: one has none.
        """
        for model in self.models:
            if model.layout is None:
                raise UsageError(f"model '{model.name}' has no gates, so it runs every layer; choose a ConvNet-AIG.")
        return self.models

    def groups(self) -> list[str]:
        """The categories to show; names of classes can be asked for too.

        Raises:
            UsageError: the data set has none, or not that one.
        """
        if not self.dataset.categories:
            raise UsageError(
                f"data set '{self.dataset.name}' sorts its classes into no categories; "
                "use digits, cifar10, imagenette or imagenet."
            )
        masks = self.masks
        for name in self.categories:
            if name not in masks:
                raise unknown("category", name, masks)
        return list(self.categories) or [name for name in self.dataset.categories if name in masks]


@dataclass(frozen=True)
class Seen:
    """What one model made of every image under one gating."""

    model: Classifier
    gating: Gating
    scores: Scores
    draws: int

    @property
    def name(self) -> str:
        """The model with its gating."""
        return contestant(self.model.name, self.gating.name)

    @property
    def keys(self) -> dict[str, str]:
        """The columns that name it."""
        return {"model": self.model.name, "gating": self.gating.name}

    @property
    def rates(self) -> npt.NDArray[np.float64]:
        """(N, L) share of draws in which each layer ran."""
        return np.asarray(self.scores.open.mean(0))

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """(N,) share of draws in which the image was classified correctly."""
        return np.asarray(self.scores.correct.mean(0))

    @property
    def downsampling(self) -> list[bool]:
        """(L,) whether each layer halves the resolution."""
        return [downsampling(block) for block in self.model.units]


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Attributes:
        shown: a short table for the console.
        tables: data by file name, without ``.csv``.
        figures: by file name, without ``.png``.
    """

    shown: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]


def look(study: Study, models: list[Classifier], gatings: tuple[Gating, ...]) -> Iterator[Seen]:
    """Every model under every gating on all images; a model without gates once."""
    for model in models:
        for gating in gatings if model.layout else (Gating("none"),):
            yield _look(study, model, gating)


def _look(study: Study, model: Classifier, gating: Gating) -> Seen:
    data = study.dataset
    draws = study.draws if gating.stochastic else 1
    size = max(8, min(500, PIXELS_PER_BATCH // int(np.prod(data.image_shape))))
    parts = []
    study.progress.start(len(data), contestant(model.name, gating.name))
    for rows in torch.arange(len(data)).split(size):
        images = data.images(rows).to(study.device, memory_format=torch.channels_last)
        labels, ids = data.labels[rows].to(study.device), data.ids[rows].to(study.device)
        network = model.network
        parts.append(score(network, gating, NO_DEFENSE, images, labels, ids, seed=study.seed, draws=draws))
        study.progress.advance(len(rows))
    return Seen(model, gating, Scores.join(parts), draws)


def short(table: pd.DataFrame) -> pd.DataFrame:
    """Fractions with three decimals, for the console."""
    return table.round(3)
