"""CIFAR-10 (Krizhevsky 2009) through torchvision, which checks every file against its official checksum."""

from pathlib import Path

import torch

from robustbench_aig.data.dataset import ArraySource, Dataset
from robustbench_aig.data.locate import find
from robustbench_aig.data.splits import select_split
from robustbench_aig.errors import Prerequisite
from robustbench_aig.registry import register

FOLDER = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CATEGORIES = {
    "animals": (2, 3, 4, 5, 6, 7),
    "vehicles": (0, 1, 8, 9),
    "birds": (2,),
    "mammals": (3, 4, 5, 7),
}


@register(
    "cifar10",
    "CIFAR-10, 50,000 training and 10,000 test images",
    classes=10,
    image_shape=(3, 32, 32),
    source="download",
)
def load(split: str, places: tuple[Path, ...], download: bool) -> Dataset:
    """CIFAR-10 from the first of ``places`` that holds ``cifar-10-batches-py``; ids are positions in the batch files.

    Args:
        split: ``train`` (45,000), ``validation`` (5,000), ``trainval`` (these two: 50,000) or ``test`` (10,000).
        places: folders to look in.
        download: fetch it into the first place when none has it.

    Raises:
        Prerequisite: it is in none of the places, damaged, or cannot be fetched.
    """
    from torchvision.datasets import CIFAR10

    if download:
        found = [place for place in places if (place / FOLDER).is_dir()]
        root = found[0] if found else places[0]
    else:
        root = find(places, (FOLDER,), "CIFAR-10", "add --download to fetch it (170 MB)").parent
    try:
        raw = CIFAR10(str(root), train=split != "test", download=download)
    except (OSError, RuntimeError) as error:
        if download:
            raise Prerequisite(f"CIFAR-10 could not be downloaded to {root} ({error}); copy it there.") from error
        raise Prerequisite(
            f"CIFAR-10 in {root / FOLDER} is damaged or incomplete; remove that folder and fetch it with --download."
        ) from error
    labels = torch.tensor(raw.targets)
    pixels = torch.from_numpy(raw.data).permute(0, 3, 1, 2).contiguous()
    whole = Dataset(
        name="cifar10",
        split=split,
        ids=torch.arange(len(labels)),
        labels=labels,
        classes=CLASSES,
        categories=CATEGORIES,
        image_shape=(3, 32, 32),
        source=ArraySource(pixels),
    )
    return whole if split == "test" else select_split(whole, split)
