"""Data sets by name. Importing this imports no torch; ``load_dataset`` does."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_aig.data.catalogue import CATALOGUE, NAMES, SPLITS, Card, check_limit
from robustbench_aig.errors import UsageError, unknown

if TYPE_CHECKING:
    from robustbench_aig.data.dataset import Dataset

__all__ = ["CATALOGUE", "NAMES", "SPLITS", "Card", "load_dataset"]

_FOLDER = re.compile(r"imagefolder:(?P<path>.+?)(?P<options>(,(resize|crop|channels)=(\d{1,6}|none))*)")


def load_dataset(
    name: str,
    *,
    split: str = "test",
    data_dir: Path | None = None,
    download: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> "Dataset":
    """Load a data set by the name that ``list datasets`` prints.

    Args:
        name: such as ``digits``, ``cifar10``, ``imagenette``, ``foolbox:imagenet`` or ``imagefolder:PATH``, which takes
            ``imagefolder:PATH,resize=256,crop=224,channels=3`` (pixels; ``none`` keeps the size; ``channels=1`` is
            grey).
        split: ``test``; or, of the training set, ``train`` (nine tenths), ``validation`` (a fixed tenth) or
            ``trainval`` (all of it). An image folder may hold a validation set of its own.
        data_dir: the folder that holds data sets; by default $ROBUSTBENCH_AIG_DATA, then ``./data``.
        download: fetch what can be fetched (CIFAR-10) when it is missing.
        limit: at most this many images: a stratified random subset, ascending by id; a larger limit only adds images.
        seed: names that subset.

    Raises:
        UsageError: unknown name or split, or a limit below 1.
        Prerequisite: the files are missing or damaged.
    """
    match = _FOLDER.fullmatch(name)
    key = "imagefolder:PATH" if match else name
    if key not in CATALOGUE or name == "imagefolder:PATH":
        raise unknown("dataset", name, NAMES)
    if split not in CATALOGUE[key].splits:
        raise UsageError(f"data set '{name}' has no split '{split}'; it has: {', '.join(CATALOGUE[key].splits)}.")
    check_limit(limit)
    from robustbench_aig.data.splits import limited

    dataset = _load_folder(match, split, data_dir) if match else _load(name, split, data_dir, download)
    return limited(dataset, limit, seed)


def _load(name: str, split: str, data_dir: Path | None, download: bool) -> "Dataset":
    from robustbench_aig.data import cifar10, digits, foolbox_samples, imagenet
    from robustbench_aig.data.locate import places

    if name == "digits":
        return digits.load(split)
    if name == "cifar10":
        return cifar10.load(split, places(data_dir), download)
    if name == "imagenet":
        return imagenet.load(split, places(data_dir))
    if name.startswith("imagenette"):
        return imagenet.load_imagenette(split, places(data_dir), imagenet_labels=name == "imagenette:imagenet")
    return foolbox_samples.load(name.removeprefix("foolbox:"))


def _load_folder(match: re.Match[str], split: str, data_dir: Path | None) -> "Dataset":
    from robustbench_aig.data import folder
    from robustbench_aig.data.locate import find, places

    options = dict(option.split("=") for option in match["options"].split(",")[1:])
    resize, crop = (_pixels(options.get(name, usual)) for name, usual in (("resize", "256"), ("crop", "224")))
    channels = options.get("channels", "3")
    if channels not in ("1", "3"):
        raise UsageError(f"the channels of an image folder must be 1 (grey) or 3 (colour), not {channels}.")
    path = str(Path(match["path"]).expanduser())
    wrong = re.search(r",(\w+=[^,/]*)$", path)
    if wrong and not Path(path).exists():
        raise UsageError(f"'{wrong[1]}' is no option of an image folder; it takes resize, crop and channels.")
    root = find((Path(), *places(data_dir)), (path,), "the image folder", "check the path")
    return folder.load_any(root, split, folder.Preprocess(resize, crop, int(channels)))


def _pixels(text: str) -> int | None:
    return None if text == "none" else int(text)
