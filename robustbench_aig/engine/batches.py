"""Batches: consecutive images of a data set on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_aig.data.dataset import Dataset


@dataclass(frozen=True)
class Batch:
    """N consecutive images.

    Attributes:
        rows: their place in the data set.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,).
        ids: (N,).
    """

    rows: slice
    images: Tensor
    labels: Tensor
    ids: Tensor

    @classmethod
    def of(cls, data: Dataset, rows: slice, device: torch.device, layout: torch.memory_format) -> "Batch":
        """The images of a data set at ``rows``, on the device."""
        images = data.images(torch.arange(rows.start, rows.stop)).to(device, memory_format=layout)
        return cls(rows, images, data.labels[rows].to(device), data.ids[rows].to(device))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: slice) -> "Batch":
        """Some of the images, by their place in the batch."""
        own = range(self.rows.start, self.rows.stop)[rows]
        return Batch(slice(own.start, own.stop), self.images[rows], self.labels[rows], self.ids[rows])
