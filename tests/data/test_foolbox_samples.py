import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robustbench_aig.data import load_dataset


def folder() -> Path:
    spec = importlib.util.find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def test_cifar10_samples_are_foolbox_s_files() -> None:
    samples = load_dataset("foolbox:cifar10")
    images = samples.uint8(torch.arange(20))
    for number in range(20):
        (file,) = folder().glob(f"cifar10_{number:02}_*")
        assert int(file.stem.split("_")[2]) == samples.labels[number]
        assert np.array_equal(np.asarray(Image.open(file)), images[number].permute(1, 2, 0).numpy())


def test_imagenet_samples() -> None:
    samples = load_dataset("foolbox:imagenet")
    assert samples.ids.tolist() == list(range(20))
    assert samples.labels[:3].tolist() == [243, 559, 438]
    assert samples.classes[samples.labels[0]] == "bull mastiff"
    assert samples.labels[0].item() in samples.categories["dogs"]
    assert samples.images(torch.tensor([10])).shape == (1, 3, 224, 224)
    assert len(load_dataset("foolbox:imagenet", limit=5)) == 5
