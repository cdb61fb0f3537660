"""Seeded stratified choices of images: held-out parts and limits.

The order is a hash of seed and image number instead of a draw from a library's generator, so that it is the same under
every version of numpy and torch.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustbench_aig.data.catalogue import check_limit
from robustbench_aig.data.dataset import Dataset

HOLD_OUT = 0.1
"""The fraction of the training set that is ``validation``."""


def stratified_order(keys: Tensor, labels: Tensor, seed: int) -> Tensor:
    """All rows in an order of which every prefix is a random subset with each class in proportion, to one image.

    Args:
        keys: (N,) int64, distinct numbers that name the images.
        labels: (N,) int64.
        seed: names the order; 0 ≤ seed < 2**64.

    Returns:
        (N,) int64, a permutation of the row numbers.
    """
    classes, column, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    shuffled = np.argsort(_mix(keys.numpy().astype(np.uint64), seed), kind="stable")
    grouped = shuffled[np.argsort(column[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(column), dtype=np.float64)
    rank[grouped] = np.arange(len(column)) - starts[column[grouped]]
    quantile = (rank + 0.5) / sizes[column]
    tie = _mix(classes.astype(np.uint64), ~seed)[column]
    return torch.from_numpy(np.lexsort((tie, quantile)).astype(np.int64))


def hold_out(ids: Tensor, labels: Tensor, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split N rows into ``count`` held-out rows, stratified, and the rest.

    Args:
        ids: (N,) int64.
        labels: (N,) int64.
        count: how many rows to hold out.
        seed: names the choice.

    Returns:
        Two int64 tensors of row numbers, both ascending: the rest, the held-out part.
    """
    order = stratified_order(ids, labels, seed)
    return order[count:].sort().values, order[:count].sort().values


def select_split(trainval: Dataset, split: str) -> Dataset:
    """The part of a whole training set that ``split`` names: ``train``, ``validation`` or ``trainval`` (all of it)."""
    if split == "trainval":
        return trainval
    rest, held_out = hold_out(trainval.ids, trainval.labels, round(HOLD_OUT * len(trainval)))
    return trainval.take(rest if split == "train" else held_out)


def limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """A stratified random subset of ``limit`` images, ascending by id; a larger limit adds images and drops none.

    Args:
        dataset: what to choose from.
        limit: how many images; None or more than there are means all.
        seed: names the subset.

    Raises:
        UsageError: ``limit`` is less than 1.
    """
    check_limit(limit)
    if limit is None or limit >= len(dataset):
        return dataset
    chosen = stratified_order(dataset.ids, dataset.labels, seed)[:limit]
    return dataset.take(chosen[dataset.ids[chosen].argsort()])


def _mix(values: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each value under a seed: the finaliser of SplitMix64 (Steele et al. 2014), applied twice."""
    mask = (1 << 64) - 1
    with np.errstate(over="ignore"):
        z = values ^ np.uint64((seed * 0x9E3779B97F4A7C15) & mask)
        for _ in range(2):
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z
