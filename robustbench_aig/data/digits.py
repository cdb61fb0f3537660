"""The 1,797 handwritten digits that scikit-learn bundles (UCI Optical Recognition of Handwritten Digits, test part)."""

import numpy as np
import torch

from robustbench_aig.data.dataset import ArraySource, Dataset
from robustbench_aig.data.splits import hold_out, select_split
from robustbench_aig.registry import register

TEST_IMAGES = 500
CATEGORIES = {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}


@register(
    "digits", "handwritten digits that come with scikit-learn", classes=10, image_shape=(1, 8, 8), source="bundled"
)
def load(split: str) -> Dataset:
    """8x8 grey images, 17 levels spread over 0 to 255; ids are positions in scikit-learn's order.

    The 500 test images are a fixed stratified choice (seed 0), since scikit-learn defines none.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    every = Dataset(
        name="digits",
        split=split,
        ids=torch.arange(len(labels)),
        labels=labels,
        classes=tuple("0123456789"),
        categories=CATEGORIES,
        image_shape=(1, 8, 8),
        source=ArraySource(pixels),
    )
    trainval, test = hold_out(every.ids, every.labels, TEST_IMAGES)
    return every.take(test) if split == "test" else select_split(every.take(trainval), split)
