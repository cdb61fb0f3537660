"""Labelled images with stable numbers, read in pixel space."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robustbench_aig.errors import UserError


class Source(Protocol):
    """Where the pixels of a data set come from, by image number."""

    def read(self, ids: Tensor) -> Tensor:
        """The images numbered ``ids`` (n,) as (n, C, H, W): uint8, or float32 in [0, 1] where 8 bits are too few."""

    def fingerprint(self, ids: Tensor) -> str:
        """A hexadecimal SHA-256 that changes when the images numbered ``ids`` change."""


@dataclass(frozen=True)
class ArraySource:
    """Images that are all in memory: uint8 (N, C, H, W), numbered from 0."""

    pixels: Tensor

    def read(self, ids: Tensor) -> Tensor:
        """The images numbered ``ids`` (n,) as uint8 (n, C, H, W)."""
        return self.pixels[ids]

    def fingerprint(self, ids: Tensor) -> str:
        """SHA-256 over the shape and the pixels of the images, in the order of ``ids``."""
        pixels = self.read(ids).contiguous()
        digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
        digest.update(pixels.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """N labelled images of one split.

    Attributes:
        name: ``cifar10``, ``digits``, ``imagefolder:NAME``, ``foolbox:cifar10``, … without any machine's path.
        split: ``train``, ``validation``, ``trainval`` or ``test``.
        ids: (N,) int64, the number of each image in its source. It names the image's noise and its row in the results,
            and depends neither on a limit nor on the order of the rows.
        labels: (N,) int64, indices into ``classes``.
        classes: the name of each class.
        categories: named groups of class indices, such as ``birds``; may be empty.
        image_shape: (C, H, W).
        source: reads pixels by id.
        note: what a user should know of how the images are read; mostly empty.
    """

    name: str
    split: str
    ids: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    categories: Mapping[str, tuple[int, ...]]
    image_shape: tuple[int, int, int]
    source: Source = field(repr=False)
    note: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def uint8(self, index: Tensor) -> Tensor:
        """The images in rows ``index`` (n,) as uint8 (n, C, H, W), finer levels rounded, for training pipelines."""
        pixels = self.source.read(self.ids[index])
        return pixels.mul(255).round_().to(torch.uint8) if pixels.is_floating_point() else pixels

    def images(self, index: Tensor) -> Tensor:
        """The images in rows ``index`` (n,) as float32 (n, C, H, W) in [0, 1]: exactly the 8-bit value over 255."""
        pixels = self.source.read(self.ids[index])
        return pixels if pixels.is_floating_point() else pixels.to(torch.float32).div_(255)

    def take(self, index: Tensor) -> "Dataset":
        """The rows ``index`` (n,), in that order, as a data set of their own."""
        return replace(self, ids=self.ids[index], labels=self.labels[index])

    @cached_property
    def index_hash(self) -> str:
        """SHA-256 over ids, then labels, as little-endian int64: which images these are, without reading them."""
        digest = hashlib.sha256()
        for column in (self.ids, self.labels):
            digest.update(np.ascontiguousarray(column.numpy(), dtype="<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the pixels; for image folders over relative paths, file sizes and preprocessing instead."""
        return self.source.fingerprint(self.ids)


def check_images(images: Tensor) -> None:
    """Refuse a batch that no model of this suite may be given.

    Args:
        images: should be float32 (N, C, H, W), finite, in [0, 1].

    Raises:
        UserError: it is not; the message says in what.
    """
    if images.ndim != 4:
        raise UserError(f"images must have the shape (N, C, H, W), not {tuple(images.shape)}; reshape them first.")
    if images.dtype != torch.float32:
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"images must be float32 in [0, 1], not {kind}; convert them first (8-bit values: over 255).")
    if not images.isfinite().all():
        raise UserError("images hold NaN or infinite values; check how they were read.")
    if images.numel() and (images.min() < 0 or images.max() > 1):
        low, high = images.min().item(), images.max().item()
        raise UserError(
            f"images span [{low:.4g}, {high:.4g}] instead of [0, 1]; use pixels over 255 and normalise in the model."
        )
