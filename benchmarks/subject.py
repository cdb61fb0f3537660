"""What benchmarks run on: models, images and how often."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.engine.scoring import score
from robustbench_aig.models.classifier import Classifier

EPSILONS = tuple(step * 2 / 255 for step in range(1, 10))
"""Nine budgets, 2/255 to 18/255."""


@dataclass(frozen=True)
class Subject:
    """Models, images and repeats.

    Attributes:
        model: without gates.
        gated: with gates.
        dataset: the images.
        codec: JPEG-75.
        data: the data set by name, and ``data_dir`` where it is: for the benchmark that loads it in other processes.
        gated_name: ``gated`` as a user names it, likewise.
        device: where models and images are.
        repeats: interleaved timings of each contender.
    """

    model: Classifier
    gated: Classifier
    dataset: Dataset
    codec: Defense
    data: str
    data_dir: Path | None
    gated_name: str
    device: torch.device
    repeats: int = 5

    @cached_property
    def images(self) -> Tensor:
        """(N, C, H, W) as a sweep hands them to an attack."""
        pixels = self.dataset.images(torch.arange(len(self.dataset)))
        return pixels.to(self.device, memory_format=torch.channels_last)

    @cached_property
    def labels(self) -> Tensor:
        """(N,)."""
        return self.dataset.labels.to(self.device)

    @cached_property
    def ids(self) -> Tensor:
        """(N,)."""
        return self.dataset.ids.to(self.device)

    def batches(self, size: int) -> Iterator["Subject"]:
        """The same with ``size`` of the images at a time."""
        for rows in torch.arange(len(self.dataset)).split(size):
            yield replace(self, dataset=self.dataset.take(rows))

    def target(self, count: int | None = None) -> Target:
        """The model as the static attacker sees it, for the first ``count`` images."""
        ids = self.ids[:count]
        rows = torch.arange(len(ids), device=self.device)
        return Target(self.model.network, Gating("none"), ids, rows, Passes.none(len(ids), self.device), 0)

    def fooled(self, crafted: Tensor) -> Tensor:
        """(E, N) bool on the CPU: the first N images as attacked (E, N, C, H, W), scored as a sweep does."""
        count = crafted.shape[1]
        labels, ids = self.labels[:count], self.ids[:count]
        parts = [
            score(self.model.network, Gating("none"), NO_DEFENSE, batch, labels, ids, seed=0, draws=1)
            for batch in crafted
        ]
        return torch.stack([torch.from_numpy(~part.correct[0]) for part in parts])
