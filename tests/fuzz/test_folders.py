"""Image folders of any modes, formats, sizes and names: read as Pillow and torchvision read them, or refused."""

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from robustbench_aig.data import load_dataset
from robustbench_aig.errors import UserError, readable
from tests.fuzz.fuzzing import CASES, cases, sentence

FORMATS = {
    "1": (".png", ".bmp", ".tif"),
    "L": (".png", ".bmp", ".tif", ".jpg", ".webp", ".pgm"),
    "LA": (".png", ".tif"),
    "P": (".png", ".bmp", ".tif"),
    "RGB": (".png", ".bmp", ".tif", ".jpg", ".webp", ".ppm", ".JPEG"),
    "RGBA": (".png", ".tif", ".webp"),
    "CMYK": (".jpg", ".tif"),
    "YCbCr": (".jpg", ".tif"),
    "I;16": (".png", ".tif", ".pgm"),
    "I": (".tif",),
    "F": (".tif",),
}
"""Suffixes by the mode of Pillow that they can hold."""

NAMES = st.one_of(
    st.sampled_from(
        ["cat", "all", "none", "nan", "a b", "a,b", "$x$", "é", "class all", ".hidden", "ünï", "TEST", "val"]
    ),
    st.binary(min_size=1, max_size=6).map(os.fsdecode),
).filter(lambda name: "/" not in name and "\0" not in name and name not in (".", ".."))


@dataclass(frozen=True)
class Picture:
    """An image file: what it holds and how it is written."""

    mode: str
    suffix: str
    width: int
    height: int
    seed: int
    white: float
    cut: bool

    def save(self, path: Path) -> Path:
        generator = np.random.default_rng(self.seed)
        levels = generator.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)
        if self.mode in ("F", "I", "I;16"):
            kind = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[self.mode]
            image = Image.fromarray((levels[:, :, 0] / 255 * self.white).astype(kind))
        elif self.mode == "LA":
            image = Image.fromarray(levels[:, :, 0]).convert("LA")
        else:
            image = Image.fromarray(levels).convert(self.mode)
        path = path.with_name(path.name + self.suffix)
        image.save(path)
        if self.cut:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path


@st.composite
def pictures(draw: st.DrawFn, mode: str | None = None, most: int = 12) -> Picture:
    mode = mode or draw(st.sampled_from(sorted(FORMATS)))
    whites = {"F": [1.0, 1.0, 255.0, -1.0, float("nan")], "I": [65535.0, 65535.0, 255.0, 1e6, -9.0]}
    return Picture(
        mode,
        draw(st.sampled_from(FORMATS[mode])),
        draw(st.integers(1, most)),
        draw(st.integers(1, most)),
        draw(st.integers(0, 99)),
        draw(st.sampled_from(whites.get(mode, [65535.0]))),
        draw(st.sampled_from([False] * 7 + [True])),
    )


def expected(path: Path, resize: int | None, crop: int | None, channels: int) -> Tensor:
    """The pixels by Pillow and torchvision alone; images of more than 8 bits over their own range."""
    with Image.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of palettes with transparency
        if file.mode == "F" or file.mode.startswith("I"):
            levels = np.asarray(file).astype(np.float64) / (1 if file.mode == "F" else 65535)
            image = Image.fromarray(levels.astype(np.float32))
        else:
            image = file.convert("RGB" if channels == 3 else "L")
    if resize is not None:
        image = functional.resize(image, resize)
    if crop is not None:
        image = functional.center_crop(image, crop)
    pixels = torch.from_numpy(np.array(image)) / (1 if image.mode == "F" else 255)
    return pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.expand(channels, *pixels.shape)


SIZES = st.sampled_from(
    [(None, None), (None, 1), (None, 4), (8, 8), (8, 5), (16, 8), (4, None), (4, 9), (0, 0), (None, 0)]
)


def spelt(resize: int | None, crop: int | None, channels: int) -> str:
    words = ["none" if size is None else str(size) for size in (resize, crop)]
    return f"resize={words[0]},crop={words[1]},channels={channels}"


def test_single_images(tmp_path: Path) -> None:
    @cases(150)
    @given(pictures(), SIZES, st.sampled_from([1, 3]))
    def check(picture: Picture, sizes: tuple[int | None, int | None], channels: int) -> None:
        CASES["images"] += 1
        root = tmp_path / "pets"
        shutil.rmtree(root, ignore_errors=True)
        (root / "a").mkdir(parents=True)
        path = picture.save(root / "a" / "x")
        try:
            data = load_dataset(f"imagefolder:{root},{spelt(*sizes, channels)}")
            found = data.images(torch.tensor([0]))
        except UserError as error:
            sentence(error)
            refused = error
        else:
            refused = None
        resize, crop = sizes
        fits = resize is not None or crop is None or crop <= min(picture.width, picture.height)
        sound = not picture.cut and picture.white in (1.0, 65535.0) and fits and 0 not in sizes and sizes != (4, 9)
        if sound and not (picture.mode == "I" and picture.width * picture.height <= 4):  # which may be all dark
            assert refused is None
        if refused:
            return
        assert found.dtype == torch.float32
        assert tuple(found.shape[1:]) == data.image_shape
        assert found.min() >= 0
        assert found.max() <= 1
        if not picture.cut:
            fine = picture.mode in ("F", "I", "I;16")
            slack = 1.01 / 255 if fine and sizes[0] is not None else 1e-6  # levels of 8 bits are rounded when resized
            torch.testing.assert_close(found[0], expected(path, *sizes, channels), atol=slack, rtol=0)
        levels = data.uint8(torch.tensor([0]))
        assert (levels.float() / 255 - found).abs().max() <= 0.5 / 255 + 1e-6

    check()


def test_whole_folders(tmp_path: Path) -> None:
    trees = st.dictionaries(NAMES, st.lists(st.tuples(NAMES, pictures(most=9)), max_size=3), max_size=4)

    @cases(100)
    @given(
        trees,
        st.sampled_from(["", "train", "test", "val", "Valid"]),
        st.sampled_from(["test", "trainval"]),
        SIZES,
    )
    def check(
        tree: dict[str, list[tuple[str, Picture]]], part: str, split: str, sizes: tuple[int | None, int | None]
    ) -> None:
        CASES["folders"] += 1
        root = tmp_path / "pets"
        shutil.rmtree(root, ignore_errors=True)
        (root / part).mkdir(parents=True)
        count = 0
        for folder, images in tree.items():
            (root / part / folder).mkdir(exist_ok=True)
            for name, picture in images:
                picture.save(root / part / folder / name)
        for folder in tree:
            seen = [path for path in (root / part / folder).iterdir() if not path.name.startswith(".")]
            count += 0 if folder.startswith(".") else len(seen)
        try:
            data = load_dataset(f"imagefolder:{root},{spelt(*sizes, 3)}", split=split)
            assert len(data) == count
            assert len(data.content_hash) == 64
            assert all(text == readable(text) for text in (data.name, data.note, *data.classes))
            images = data.images(torch.arange(len(data)))
        except UserError as error:
            sentence(error)
            return
        assert images.shape == (count, *data.image_shape)
        assert ((images >= 0) & (images <= 1)).all()

    check()
