"""The twenty CIFAR-10 and twenty ImageNet images that foolbox installs, read without importing foolbox."""

import re
from importlib.util import find_spec
from pathlib import Path

import torch

from robustbench_aig.data import cifar10, imagenet, imagenet_categories
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.folder import FolderSource, Preprocess
from robustbench_aig.errors import Prerequisite
from robustbench_aig.registry import register


@register(
    "foolbox:cifar10",
    "20 CIFAR-10 test images from foolbox",
    classes=10,
    image_shape=(3, 32, 32),
    splits=("test",),
    source="bundled",
)
def load_cifar10() -> Dataset:
    """The CIFAR-10 images; see :func:`load`."""
    return load("cifar10")


@register("foolbox:imagenet", "20 ImageNet images from foolbox", classes=1000, splits=("test",), source="bundled")
def load_imagenet() -> Dataset:
    """The ImageNet images; see :func:`load`."""
    return load("imagenet")


def load(name: str) -> Dataset:
    """The images of ``cifar10`` (32 pixels) or ``imagenet`` (resized to 256, centre 224), ids 0 to 19 as in foolbox.

    Foolbox's own ``samples`` squeezes ImageNet images to 224 x 224 instead of cropping them.

    Raises:
        Prerequisite: foolbox or its images are not installed.
    """
    spec = find_spec("foolbox")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    pattern = re.compile(rf"{name}_\d+_(\d+)\.(?:png|jpg)")
    files = sorted(path.name for path in folder.glob("*") if pattern.fullmatch(path.name)) if folder else []
    if folder is None or not files:
        raise Prerequisite("foolbox's sample images are not installed; install foolbox again.")
    small = name == "cifar10"
    preprocess = Preprocess(resize=None, crop=32) if small else Preprocess()
    source = FolderSource(folder, tuple(files), preprocess)
    return Dataset(
        name=f"foolbox:{name}",
        split="test",
        ids=torch.arange(len(files)),
        labels=torch.tensor([int(file.rpartition("_")[2].partition(".")[0]) for file in files]),
        classes=cifar10.CLASSES if small else imagenet.class_names(),
        categories=cifar10.CATEGORIES if small else imagenet_categories.CATEGORIES,
        image_shape=source.shape,
        source=source,
    )
