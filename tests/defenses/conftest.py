"""Natural images for the defences: the samples that foolbox bundles, read as files so that foolbox is not imported."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def _samples(pattern: str) -> list[np.ndarray]:
    spec = importlib.util.find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "data").glob(pattern))
    assert files
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@pytest.fixture(scope="session")
def cifar() -> torch.Tensor:
    """(20, 3, 32, 32) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(_samples("cifar10_*.png"))).permute(0, 3, 1, 2).contiguous() / 255


@pytest.fixture(scope="session")
def imagenet() -> torch.Tensor:
    """(20, 3, 224, 224) float32 in [0, 1]."""
    cropped = [image[:224, :224] for image in _samples("imagenet_*.jpg")]
    return torch.from_numpy(np.stack(cropped)).permute(0, 3, 1, 2).contiguous() / 255
