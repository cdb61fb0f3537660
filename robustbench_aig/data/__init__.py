"""Data sets by name: one data set, one file. Importing this imports no torch; ``load_dataset`` does.

A data set is a registered function that returns it, from those of these that it names: ``split``, the folders
``places`` to look in, and whether it may ``download``; a family also from ``argument``, what follows its prefix.
"""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_aig.data.catalogue import SPLITS, check_limit
from robustbench_aig.errors import UsageError
from robustbench_aig.registry import Registry, register

if TYPE_CHECKING:
    from robustbench_aig.data.dataset import Dataset

__all__ = ["SPLITS", "load_dataset", "registry"]

registry: "Registry[Dataset]" = Registry(
    "dataset",
    "robustbench_aig.data",
    "robustbench_aig.data",
    classes=None,  # where the files decide
    image_shape=(3, 224, 224),
    splits=SPLITS,
    source="manual",  # bundled, download or manual: where its files come from
)

_FOLDER = re.compile(r"(?P<path>.+?)(?P<options>(,(resize|crop|channels)=(\d{1,6}|none))*)")


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
    entry, argument = registry.find(name)
    if argument and not entry.family:
        raise UsageError(f"data set '{entry.name}' takes no parameters; leave ':{argument}' out.")
    if split not in entry.facts["splits"]:
        raise UsageError(f"data set '{name}' has no split '{split}'; it has: {', '.join(entry.facts['splits'])}.")
    check_limit(limit)
    from robustbench_aig.data.locate import places
    from robustbench_aig.data.splits import limited

    load = entry.load()
    given = {"argument": argument, "split": split, "places": places(data_dir), "download": download}
    dataset = load(**{key: value for key, value in given.items() if key in inspect.signature(load).parameters})
    return limited(dataset, limit, seed)


@register("imagefolder:PATH", "any folder of CLASS, or of train/CLASS and test/CLASS")
def _load_folder(argument: str, split: str, places: tuple[Path, ...]) -> "Dataset":
    from robustbench_aig.data import folder
    from robustbench_aig.data.locate import find

    match = _FOLDER.fullmatch(argument)
    assert match is not None
    options = dict(option.split("=") for option in match["options"].split(",")[1:])
    resize, crop = (_pixels(options.get(name, usual)) for name, usual in (("resize", "256"), ("crop", "224")))
    channels = options.get("channels", "3")
    if channels not in ("1", "3"):
        raise UsageError(f"the channels of an image folder must be 1 (grey) or 3 (colour), not {channels}.")
    path = str(Path(match["path"]).expanduser())
    wrong = re.search(r",(\w+=[^,/]*)$", path)
    if wrong and not Path(path).exists():
        raise UsageError(f"'{wrong[1]}' is no option of an image folder; it takes resize, crop and channels.")
    root = find((Path(), *places), (path,), "the image folder", "check the path")
    return folder.load_any(root, split, folder.Preprocess(resize, crop, int(channels)))


def _pixels(text: str) -> int | None:
    return None if text == "none" else int(text)
