"""Images in folders named after their classes: ``ROOT/CLASS/*`` or ``ROOT/train/CLASS/*`` and ``ROOT/test/CLASS/*``."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from robustbench_aig.data.dataset import Dataset
from robustbench_aig.data.splits import select_split
from robustbench_aig.errors import Prerequisite, UsageError, first_line, readable

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
CACHE_BYTES = 1 << 30
WORKERS = min(8, os.cpu_count() or 1)

PARTS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("val", "valid", "validation")}
"""What the folders of a data set's parts may be called, in small or capital letters."""

SIXTEEN_BITS = 65535


@dataclass(frozen=True)
class Preprocess:
    """From an image file to pixels: the paper's test path, which is also torchvision's (resize 256, centre crop 224).

    Attributes:
        resize: length in pixels that the shorter side is brought to (bilinear with antialiasing); None leaves the size.
        crop: side in pixels of the square that is then cut from the centre; None leaves the whole image.
        channels: 3 for colour, which spreads grey images over three channels, or 1 for grey.
    """

    resize: int | None = 256
    crop: int | None = 224
    channels: int = 3

    def __post_init__(self) -> None:
        smallest = self.resize if self.crop is None else self.crop
        if (smallest is not None and smallest < 1) or (
            self.resize is not None and self.crop is not None and self.resize < self.crop
        ):
            raise UsageError(
                f"cannot crop {self.crop} pixels from images resized to {self.resize}; crop at most that many."
            )

    @property
    def suffix(self) -> str:
        """What a data set's name says of it: nothing for the usual one."""
        usual = Preprocess()
        size = f",resize={self.resize or 'none'},crop={self.crop or 'none'}"
        same = (self.resize, self.crop) == (usual.resize, usual.crop)
        return ("" if same else size) + ("" if self.channels == usual.channels else f",channels={self.channels}")

    def read(self, path: Path) -> Tensor:
        """The image file as (channels, height, width): 8-bit levels as uint8, finer ones as float32 in [0, 1].

        16-bit images are read over their own range; floating-point images must lie in [0, 1] already.

        Raises:
            Prerequisite: it cannot be decoded, has no known range, or is smaller than the crop.
        """
        from torchvision.transforms import functional

        image = _decode(path, self.channels)
        if self.resize is not None:
            image = functional.resize(image, self.resize)
        if self.crop is not None:
            if min(image.size) < self.crop:
                raise Prerequisite(
                    f"the image {path} is smaller than the crop of {self.crop} pixels; resize or crop less."
                )
            image = functional.center_crop(image, self.crop)
        pixels = torch.from_numpy(np.array(image))
        if pixels.ndim == 3:
            return pixels.permute(2, 0, 1)
        if pixels.is_floating_point():  # resizing may round beyond the ends
            pixels.clamp_(0, 1)
        return pixels.expand(self.channels, *pixels.shape)


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
    _shape: list[torch.Size] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W): of the crop, or of the first image, which all others must have.

        Raises:
            Prerequisite: the first image cannot be read.
        """
        preprocess = self.preprocess
        if preprocess.crop is not None:
            return preprocess.channels, preprocess.crop, preprocess.crop
        if not self._shape:
            self._shape.append(self._decode(0).shape)
        channels, height, width = self._shape[0]
        return channels, height, width

    def read(self, ids: Tensor) -> Tensor:
        """The images numbered ``ids`` (n,) as (n, C, H, W): uint8, or float32 in [0, 1] if one has finer levels.

        Raises:
            Prerequisite: an image cannot be read, or differs from the others in size.
        """
        numbers = ids.tolist()
        missing = [number for number in dict.fromkeys(numbers) if number not in self._cache]
        with ThreadPoolExecutor(WORKERS) as pool:
            fresh = dict(zip(missing, pool.map(self._decode, missing), strict=True))
        for number, image in fresh.items():
            self._refuse_size(number, image)
        images = [fresh[number] if number in fresh else self._cache[number] for number in numbers]
        fine = any(image.is_floating_point() for image in images)
        batch = torch.empty((len(numbers), *self.shape), dtype=torch.float32 if fine else torch.uint8)
        for row, image in enumerate(images):
            batch[row] = image if image.is_floating_point() or not fine else image / 255
        room = self.cache_bytes - sum(image.nbytes for image in self._cache.values())
        for number in missing:
            room -= fresh[number].nbytes
            if room < 0:
                break
            self._cache[number] = fresh[number]
        return batch

    def fingerprint(self, ids: Tensor) -> str:
        """SHA-256 over preprocessing, relative paths and file sizes: reading every file would be slow.

        Raises:
            Prerequisite: a file is gone.
        """
        digest = hashlib.sha256(repr(self.preprocess).encode())
        for number in ids.tolist():
            name = self.files[number]
            try:
                size = (self.root / name).stat().st_size
            except OSError as error:
                raise _unreadable(self.root / name, error) from None
            digest.update(b"\n%b\0%d" % (os.fsencode(name), size))
        return digest.hexdigest()

    def _decode(self, number: int) -> Tensor:
        return self.preprocess.read(self.root / self.files[number])

    def _refuse_size(self, number: int, image: Tensor) -> None:
        if tuple(image.shape) != self.shape:
            size, usual = (f"{width}x{height}" for _, height, width in (image.shape, self.shape))
            raise Prerequisite(
                f"the image {self.files[number]} has {size} pixels and the first one {usual}; "
                "give crop=PIXELS, since all images need one size."
            )


def class_folders(root: Path) -> tuple[str, ...]:
    """The class folders of a data set, sorted, from all its parts or, without parts, from ``root`` itself.

    Raises:
        Prerequisite: there are none.
    """
    folders = tuple(_parts(root).values()) or (root,)
    names = {entry.name for folder in folders for entry in _folders(folder)}
    if not names:
        raise Prerequisite(
            f"{folders[-1]} holds no class folders; put each image into a folder named after its class or wnid."
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
    """Images by class folder; ids are positions in their sorted paths.

    Args:
        root: the folder with ``train`` and ``test`` or ``val``; one without any of them is a test set by itself.
        split: ``test`` reads ``test``, or ``val`` where there is none. ``validation`` reads ``val`` where there are
            both, and ``train`` all of ``train``; otherwise both are parts of ``train``. ``trainval`` is these two.
        preprocess: how a file becomes pixels.
        name: the data set's name, without a path.
        index: label of each class folder.
        classes: the name of each label.
        categories: named groups of labels.

    Raises:
        Prerequisite: the split's folder or its images are missing.
    """
    parts = _parts(root)
    held_out = "test" in parts and "validation" in parts
    if split == "test":
        folders = [parts.get("test") or parts.get("validation") or (root if not parts else _missing(root, split))]
    else:
        folders = [parts.get("train") or _missing(root, split), *([parts["validation"]] if held_out else [])]
    base = folders[0] if len(folders) == 1 else root
    found = sorted(
        (path, category.name, folder)
        for folder in folders
        for category in _folders(folder)
        for path in _images(base, folder / category.name)
    )
    if not found:
        raise Prerequisite(f"{folders[0]} holds no images; put each one into a folder named after its class or wnid.")
    source = FolderSource(base, tuple(path for path, _, _ in found), preprocess)
    whole = Dataset(
        name=name,
        split=split,
        ids=torch.arange(len(found)),
        labels=torch.tensor([index[category] for _, category, _ in found]),
        classes=classes,
        categories=categories,
        image_shape=source.shape,
        source=source,
    )
    if split in ("test", "trainval"):
        return whole
    if not held_out:
        return select_split(whole, split)
    return whole.take(torch.tensor([row for row, entry in enumerate(found) if entry[2] == parts[split]]))


def load_any(root: Path, split: str, preprocess: Preprocess) -> Dataset:
    """A folder of the user's own: labels number its class folders in sorted order; no categories."""
    classes = class_folders(root)
    index = {folder: label for label, folder in enumerate(classes)}
    name = f"imagefolder:{readable(root.resolve().name)}{preprocess.suffix}"
    names = tuple(map(readable, classes))
    data = load(root, split, preprocess, name=name, index=index, classes=names, categories={})
    return replace(data, note=_note(data, preprocess))


def _note(data: Dataset, preprocess: Preprocess) -> str:
    """What happens to images on the way in, by the first of them; nothing if they stay as they are."""
    source = data.source
    assert isinstance(source, FolderSource)
    first = source.root / source.files[int(data.ids[0])]
    with _opened(first) as file:
        width, height = file.size
        grey = file.mode in ("1", "L", "LA", "F") or file.mode.startswith("I")
    shape = f"{data.image_shape[2]}x{data.image_shape[1]}"
    keep = []
    if shape != f"{width}x{height}":
        keep.append("resize=none,crop=none")
    if grey != (preprocess.channels == 1):
        keep.append(f"channels={1 if grey else 3}")
    if not keep:
        return ""
    steps = [] if preprocess.resize is None else [f"resized to {preprocess.resize}"]
    steps += [] if preprocess.crop is None else [f"cut to {shape}"]
    steps.append("read in colour" if preprocess.channels == 3 else "read in grey")
    return (
        f"{data.name}: the first image has {width}x{height} pixels in {'grey' if grey else 'colour'}; "
        f"images are {', '.join(steps)}. To keep them as they are: imagefolder:PATH,{','.join(keep)}"
    )


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except Exception as error:  # decoders raise whatever damage makes them raise
        raise _unreadable(path, error) from None


def _decode(path: Path, channels: int) -> Image.Image:
    """The image file in colour or grey in 8 bits, or in grey in floating point where it has finer levels."""
    try:
        with _opened(path) as file:
            if file.mode == "F" or file.mode.startswith("I"):
                return Image.fromarray(_levels(file, path))
            if file.mode == "P" and "transparency" in file.info:  # Pillow warns of the direct way
                return file.convert("RGBA").convert("RGB" if channels == 3 else "L")
            return file.convert("RGB" if channels == 3 else "L")
    except Prerequisite:
        raise
    except Exception as error:  # decoders raise whatever damage makes them raise
        raise _unreadable(path, error) from None


def _levels(file: Image.Image, path: Path) -> npt.NDArray[np.float32 | np.uint8]:
    """(H, W) grey levels of an image with more than 8 bits: float32 in [0, 1], or uint8 if 8 bits write all of them.

    Raises:
        Prerequisite: nothing says what its white is.
    """
    values = np.asarray(file)
    low, high = values.min(), values.max()
    if file.mode == "F":
        if not (low >= 0 and high <= 1):  # false for NaN
            raise Prerequisite(
                f"the image {path} holds numbers from {low:.4g} to {high:.4g} in place of [0, 1]; "
                "divide them by their white, or save 8-bit or 16-bit images."
            )
        return _short(values.astype(np.float32))
    wide = file.mode == "I" and file.format == "TIFF"  # 32 bits; other formats have 16 and Pillow calls them I
    if low < 0 or high > SIXTEEN_BITS or (wide and 0 < high <= 255):
        raise Prerequisite(
            f"the image {path} holds integers from {low} to {high} in 32 bits, and nothing says which is white; "
            "save it with 8 or 16 bits."
        )
    return _short(values.astype(np.float32) / np.float32(SIXTEEN_BITS))


def _short(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32 | np.uint8]:
    """The values in 8 bits if that loses nothing: then they are resized and rounded as 8-bit images are."""
    levels = np.round(values * 255)
    return levels.astype(np.uint8) if np.array_equal(levels / np.float32(255), values) else values


def _parts(root: Path) -> dict[str, Path]:
    """The folders of a data set's parts, ``train``, ``test`` and ``validation``; none where ``root`` holds classes.

    Only what holds folders is a part: beside classes ``test`` may be one more class, and beside parts unsorted images.

    Raises:
        Prerequisite: two folders may be the same part.
    """
    folders = sorted(entry.name for entry in _folders(root))
    named = {name: part for name in folders for part, names in PARTS.items() if name.lower() in names}
    holding = [name for name in named if any(_folders(root / name))]
    parts: dict[str, list[str]] = {}
    for name in holding or (named if len(named) == len(folders) else ()):
        parts.setdefault(named[name], []).append(name)
    for part, names in parts.items():
        if len(names) > 1:
            raise Prerequisite(
                f"{root} holds {' and '.join(names)}, which may both be its {part} part; leave one of them there."
            )
    return {part: root / names[0] for part, names in parts.items()}


def _missing(root: Path, split: str) -> Path:
    wanted = "'test' or 'val'" if split == "test" else "'train'"
    raise Prerequisite(
        f"{root} has no folder {wanted} of class folders, which holds the split '{split}'; choose another with --split."
    )


def _unreadable(path: Path, error: Exception) -> Prerequisite:
    return Prerequisite(f"the image {path} cannot be read ({first_line(error)}); replace or remove it.")


def _folders(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder, through links too, without hidden ones."""
    return (entry for entry in _entries(folder) if os.path.isdir(entry.path) and not entry.name.startswith("."))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise Prerequisite(f"the folder {folder} cannot be read ({error.strerror}); check its permissions.") from error


def _images(base: Path, folder: Path) -> Iterator[str]:
    """Paths relative to ``base`` of the images in a folder and in those below it, through links too.

    A link to a folder that it lies in leads nowhere new and is left out.
    """
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        place, above = waiting.pop()
        status = os.stat(place)
        within = above | {(status.st_dev, status.st_ino)}
        if len(within) == len(above):
            continue
        for entry in _entries(place):
            if os.path.isdir(entry.path):
                waiting.append((place / entry.name, within))
            elif not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield (place / entry.name).relative_to(base).as_posix()
