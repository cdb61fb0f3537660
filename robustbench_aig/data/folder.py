"""Images in folders named after their classes: ``ROOT/train/CLASS/*`` and ``ROOT/val/CLASS/*``."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.splits import select_split
from robustbench_aig.errors import Prerequisite, UsageError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
CACHE_BYTES = 1 << 30
WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Preprocess:
    """From an image file to pixels: the paper's test path, which is also torchvision's (resize 256, centre crop 224).

    Attributes:
        resize: length in pixels that the shorter side is brought to (bilinear with antialiasing); None leaves the size.
        crop: side in pixels of the square that is then cut from the centre.
    """

    resize: int | None = 256
    crop: int = 224

    def __post_init__(self) -> None:
        if self.crop < 1 or (self.resize is not None and self.resize < self.crop):
            raise UsageError(
                f"cannot crop {self.crop} pixels from images resized to {self.resize}; crop at most that many."
            )

    def read(self, path: Path) -> Tensor:
        """The image file as uint8 (3, crop, crop), grey images spread over three channels.

        Raises:
            Prerequisite: it cannot be decoded, or is smaller than the crop.
        """
        from PIL import Image
        from torchvision.transforms import functional

        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise Prerequisite(f"the image {path} cannot be read ({error}); replace or remove it.") from error
        if self.resize is not None:
            image = functional.resize(image, self.resize)
        if min(image.size) < self.crop:
            raise Prerequisite(f"the image {path} is smaller than the crop of {self.crop} pixels; resize or crop less.")
        return torch.from_numpy(np.array(functional.center_crop(image, self.crop))).permute(2, 0, 1)


@dataclass(frozen=True)
class FolderSource:
    """Image files, decoded when asked for. The first images read stay decoded in memory, up to ``cache_bytes``.

    Keeping the first instead of the latest is what helps repeated passes over more images than fit.

    Attributes:
        root: the folder that ``files`` are relative to.
        files: POSIX paths; an image's number is its position.
        preprocess: how a file becomes pixels.
        cache_bytes: upper limit of the pixels kept.
    """

    root: Path
    files: tuple[str, ...]
    preprocess: Preprocess
    cache_bytes: int = CACHE_BYTES
    _cache: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, ids: Tensor) -> Tensor:
        """The images numbered ``ids`` (n,) as uint8 (n, 3, crop, crop)."""
        numbers = ids.tolist()
        missing = [number for number in dict.fromkeys(numbers) if number not in self._cache]
        with ThreadPoolExecutor(WORKERS) as pool:
            fresh = dict(zip(missing, pool.map(self._decode, missing), strict=True))
        side = self.preprocess.crop
        batch = torch.empty((len(numbers), 3, side, side), dtype=torch.uint8)
        for row, number in enumerate(numbers):
            batch[row] = fresh[number] if number in fresh else self._cache[number]
        room = self.cache_bytes // (3 * side * side) - len(self._cache)
        for number in missing[: max(room, 0)]:
            self._cache[number] = fresh[number]
        return batch

    def fingerprint(self, ids: Tensor) -> str:
        """SHA-256 over preprocessing, relative paths and file sizes: reading every file would be slow."""
        digest = hashlib.sha256(repr(self.preprocess).encode())
        for number in ids.tolist():
            name = self.files[number]
            digest.update(f"\n{name}\0{(self.root / name).stat().st_size}".encode())
        return digest.hexdigest()

    def _decode(self, number: int) -> Tensor:
        return self.preprocess.read(self.root / self.files[number])


def class_folders(root: Path) -> tuple[str, ...]:
    """The class folders of a data set, sorted, whether in ``train``, in ``val`` or, without these, in ``root`` itself.

    Raises:
        Prerequisite: there are none.
    """
    parts = [part for part in (root / "train", root / "val") if part.is_dir()] or [root]
    names = {entry.name for part in parts for entry in _entries(part) if entry.is_dir()}
    if not names:
        raise Prerequisite(
            f"{parts[-1]} holds no class folders; put each image into a folder named after its class or wnid."
        )
    return tuple(sorted(names))


def load(
    root: Path,
    split: str,
    preprocess: Preprocess,
    *,
    name: str,
    index: Mapping[str, int],
    classes: tuple[str, ...],
    categories: Mapping[str, tuple[int, ...]],
) -> Dataset:
    """Images by class folder; ids are positions in the sorted paths of ``train`` or of ``val``.

    Args:
        root: the folder with ``train`` and ``val``; one without either is a test set by itself.
        split: ``test`` reads ``val``; the others are parts of ``train``.
        preprocess: how a file becomes pixels.
        name: the data set's name, without a path.
        index: label of each class folder.
        classes: the name of each label.
        categories: named groups of labels.

    Raises:
        Prerequisite: the split's folder or its images are missing.
    """
    folder = _part(root, split)
    files = tuple(sorted(path for entry in _entries(folder) if entry.is_dir() for path in _images(folder, entry.name)))
    if not files:
        raise Prerequisite(f"{folder} holds no images; put each one into a folder named after its class or wnid.")
    whole = Dataset(
        name=name,
        split=split,
        ids=torch.arange(len(files)),
        labels=torch.tensor([index[file.partition("/")[0]] for file in files]),
        classes=classes,
        categories=categories,
        image_shape=(3, preprocess.crop, preprocess.crop),
        source=FolderSource(folder, files, preprocess),
    )
    return whole if split == "test" else select_split(whole, split)


def load_any(root: Path, split: str, preprocess: Preprocess) -> Dataset:
    """A folder of the user's own: labels number its class folders in sorted order; no categories."""
    classes = class_folders(root)
    index = {folder: label for label, folder in enumerate(classes)}
    name = f"imagefolder:{root.resolve().name}"
    if preprocess != Preprocess():
        name += f",resize={preprocess.resize or 'none'},crop={preprocess.crop}"
    return load(root, split, preprocess, name=name, index=index, classes=classes, categories={})


def _part(root: Path, split: str) -> Path:
    part = "val" if split == "test" else "train"
    if (root / part).is_dir():
        return root / part
    if part == "val" and not (root / "train").is_dir():
        return root
    raise Prerequisite(f"{root} has no folder '{part}', which holds the split '{split}'; choose another split.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise Prerequisite(f"the folder {folder} cannot be read ({error.strerror}); check its permissions.") from error


def _images(folder: Path, name: str) -> list[str]:
    return [
        Path(parent, file).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder / name)
        for file in files
        if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES
    ]
