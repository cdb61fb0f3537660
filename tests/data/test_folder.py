import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_aig.data import load_dataset
from robustbench_aig.data.folder import FolderSource, Preprocess
from robustbench_aig.errors import Prerequisite, UsageError, UserError

Maker = Callable[..., Path]


def picture(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_root(tmp_path: Path) -> Maker:
    """Write ``{"train/cat": 3, …}`` as PNG files of 12 x 10 pixels and return the root."""

    def make(counts: dict[str, int], name: str = "pets") -> Path:
        root = tmp_path / name
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                picture(12, 10, len(folder) * 1000 + number).save(root / folder / f"{number:04}.png")
        return root

    return make


def test_splits_labels_and_name(make_root: Maker) -> None:
    root = make_root({"train/cat": 20, "train/ant": 40, "val/cat": 2, "val/ant": 1})
    spec = f"imagefolder:{root},resize=10,crop=8"
    test = load_dataset(spec)
    assert (test.name, test.classes, test.image_shape) == (
        "imagefolder:pets,resize=10,crop=8",
        ("ant", "cat"),
        (3, 8, 8),
    )
    assert test.labels.tolist() == [0, 1, 1]
    assert test.ids.tolist() == [0, 1, 2]
    train, validation, both = (load_dataset(spec, split=split) for split in ("train", "validation", "trainval"))
    assert validation.labels.bincount().tolist() == [4, 2]
    assert sorted(train.ids.tolist() + validation.ids.tolist()) == both.ids.tolist() == list(range(60))


def test_pixels_are_the_papers_test_path(make_root: Maker) -> None:
    from torchvision.transforms import v2

    root = make_root({"val/cat": 0})
    picture(400, 300, 1).save(root / "val" / "cat" / "wide.png")
    picture(300, 400, 2).convert("L").save(root / "val" / "cat" / "tall.jpg")
    test = load_dataset(f"imagefolder:{root}")
    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    assert test.name == "imagefolder:pets"
    for row, name in enumerate(("tall.jpg", "wide.png")):
        expected = transform(Image.open(root / "val" / "cat" / name).convert("RGB"))
        assert torch.equal(test.uint8(torch.tensor([row]))[0], expected)


def test_without_resizing_the_centre_is_cut(make_root: Maker) -> None:
    root = make_root({"val/cat": 1})
    test = load_dataset(f"imagefolder:{root},resize=none,crop=6")
    pixels = np.asarray(Image.open(root / "val" / "cat" / "0000.png"))
    assert torch.equal(test.uint8(torch.tensor([0]))[0], torch.from_numpy(pixels[2:8, 3:9].transpose(2, 0, 1).copy()))


def test_folder_without_train_and_val_is_a_test_set(make_root: Maker) -> None:
    root = make_root({"cat": 2, "dog/inner": 1, ".hidden": 1})
    (root / "dog" / "notes.txt").write_text("not an image")
    test = load_dataset(f"imagefolder:{root},resize=8,crop=8")
    assert test.classes == ("cat", "dog")
    assert test.labels.tolist() == [0, 0, 1]
    with pytest.raises(
        Prerequisite,
        match="no folder 'train' of class folders, which holds the split 'train'; choose another with --split",
    ):
        load_dataset(f"imagefolder:{root},resize=8,crop=8", split="train")


def test_relative_path_is_found_under_the_data_folder(make_root: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root({"val/cat": 1})
    assert len(load_dataset("imagefolder:pets,resize=8,crop=8", data_dir=root.parent)) == 1
    monkeypatch.setenv("ROBUSTBENCH_AIG_DATA", str(root.parent))
    assert len(load_dataset("imagefolder:pets,resize=8,crop=8")) == 1


def test_cache_is_bounded_and_changes_nothing(make_root: Maker) -> None:
    root = make_root({"val/cat": 6}) / "val"
    files = tuple(f"cat/{number:04}.png" for number in range(6))
    source = FolderSource(root, files, Preprocess(None, 8), cache_bytes=2 * 3 * 8 * 8)
    first = source.read(torch.tensor([4, 0, 4, 1]))
    (root / files[4]).unlink()
    (root / files[0]).unlink()
    second = source.read(torch.tensor([0, 1, 4]))  # 4 and 0 come from memory, 1 from its file
    assert torch.equal(second, first[[1, 3, 0]])
    assert torch.equal(first[0], first[2])
    (root / files[1]).unlink()
    with pytest.raises(Prerequisite, match="cannot be read"):
        source.read(torch.tensor([1]))


def test_content_hash_follows_files_and_preprocessing(make_root: Maker) -> None:
    root = make_root({"val/cat": 3})
    spec = f"imagefolder:{root},resize=8,crop=8"
    before = load_dataset(spec)
    assert load_dataset(spec).content_hash == before.content_hash
    assert load_dataset(f"imagefolder:{root},resize=9,crop=8").content_hash != before.content_hash
    picture(30, 30, 9).save(root / "val" / "cat" / "0001.png")
    after = load_dataset(spec)
    assert (after.index_hash == before.index_hash, after.content_hash == before.content_hash) == (True, False)


@pytest.mark.parametrize("damage", ["empty", "truncated", "words"])
def test_damaged_image_is_named(make_root: Maker, damage: str) -> None:
    root = make_root({"val/cat": 1})
    file = root / "val" / "cat" / "0000.png"
    file.write_bytes({"empty": b"", "truncated": file.read_bytes()[:200], "words": b"no image at all"}[damage])
    with pytest.raises(Prerequisite, match=r"0000\.png cannot be read .*; replace or remove it\.$"):
        load_dataset(f"imagefolder:{root},resize=8,crop=8").images(torch.tensor([0]))


def test_image_smaller_than_the_crop_is_refused(make_root: Maker) -> None:
    root = make_root({"val/cat": 1})
    with pytest.raises(Prerequisite, match="smaller than the crop of 11 pixels"):
        load_dataset(f"imagefolder:{root},resize=none,crop=11").images(torch.tensor([0]))


@pytest.mark.parametrize("options", ["resize=8,crop=9", "crop=0", "resize=0,crop=none"])
def test_impossible_sizes_are_refused(make_root: Maker, options: str) -> None:
    with pytest.raises(UsageError, match="crop"):
        load_dataset(f"imagefolder:{make_root({'val/cat': 1})},{options}")


def test_missing_folder_names_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTBENCH_AIG_DATA", "elsewhere")
    with pytest.raises(Prerequisite, match=r"looked for pets, elsewhere/pets, data/pets\)".replace("/", f"\\{os.sep}")):
        load_dataset("imagefolder:pets")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"val/cat": 0}, "holds no images"),
        ({"val": 2}, "holds no class folders"),
        ({"train/cat": 1}, "no folder 'test' or 'val' of class folders"),
    ],
)
def test_folder_that_holds_nothing_usable(make_root: Maker, counts: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_dataset(f"imagefolder:{make_root(counts)}")


@pytest.mark.parametrize("options", ["crop=5x", "size=8", "crop=8,channels=2", "resize=8,crop=8,rezise=7"])
def test_options_that_there_are_not(make_root: Maker, options: str) -> None:
    with pytest.raises(UsageError, match="image folder"):
        load_dataset(f"imagefolder:{make_root({'val/cat': 1})},{options}")


def reads(root: Path, **options: object) -> torch.Tensor:
    given = "".join(f",{name}={value}" for name, value in options.items())
    data = load_dataset(f"imagefolder:{root}{given}")
    return data.images(torch.arange(len(data)))


def ramp() -> np.ndarray:
    """All 256 levels, 16 x 16."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("16.png", Image.fromarray(ramp().astype(np.uint16) * 257)),
        ("16.tif", Image.fromarray(ramp().astype(np.uint16) * 257)),
        ("big-endian.tif", Image.fromarray((ramp().astype(">u2") * 257).astype(">u2"))),
        ("32.pgm", Image.fromarray(ramp().astype(np.int32) * 257)),
        ("32.tif", Image.fromarray(ramp().astype(np.int32) * 257)),
        ("float.tif", Image.fromarray(ramp().astype(np.float32) / 255)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_more_than_8_bits_have_the_pixels_of_their_8_bit_copies(
    make_root: Maker, file: str, image: Image.Image, channels: int
) -> None:
    roots = [make_root({"a": 0}, name) for name in ("8", "more")]
    Image.fromarray(ramp()).save(roots[0] / "a" / "8.png")
    image.save(roots[1] / "a" / file)
    plain, fine = (reads(root, resize="none", crop="none", channels=channels) for root in roots)
    assert plain.shape == (1, channels, 16, 16)
    assert torch.equal(plain, fine)
    assert torch.equal(plain[0, 0], torch.from_numpy(ramp()) / 255)
    assert torch.equal(
        *(load_dataset(f"imagefolder:{root},resize=none,crop=16").uint8(torch.tensor([0])) for root in roots)
    )
    plain, fine = (reads(root, resize=24, crop=20, channels=channels) for root in roots)
    assert torch.equal(plain, fine)


def test_levels_between_8_bits_are_kept_and_mixed_folders_are_one_data_set(make_root: Maker) -> None:
    root = make_root({"a": 0})
    Image.fromarray(ramp()).save(root / "a" / "0.png")
    Image.fromarray(ramp().astype(np.uint16) * 256 + 128).save(root / "a" / "1.png")
    smaller = reads(root, resize=12, crop=10, channels=1)
    assert 0 < (smaller[1] - smaller[0]).abs().max() <= 1.5 / 255  # what has 8 bits is rounded when resized
    both = reads(root, resize="none", crop="none", channels=1)
    assert torch.equal(both[0, 0], torch.from_numpy(ramp()) / 255)
    assert torch.equal(both[1, 0], torch.from_numpy((ramp().astype(np.float32) * 256 + 128) / np.float32(65535)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (ramp().astype(np.float32), r"numbers from 0 to 255 in place of \[0, 1\]"),
        (np.full((16, 16), np.nan, np.float32), "numbers from nan to nan"),
        (np.full((16, 16), -0.5, np.float32), "numbers from -0.5"),
        (ramp().astype(np.int32), "integers from 0 to 255 in 32 bits"),
        (np.full((16, 16), 70_000, np.int32), "integers from 70000"),
        (np.full((16, 16), -1, np.int32), "integers from -1"),
    ],
)
def test_a_range_that_nothing_states_is_not_guessed(make_root: Maker, values: np.ndarray, words: str) -> None:
    root = make_root({"a": 0})
    Image.fromarray(values).save(root / "a" / "x.tif")
    with pytest.raises(Prerequisite, match=words):
        reads(root, resize="none", crop="none")


def test_colour_and_palettes_can_be_read_in_grey(make_root: Maker) -> None:
    root = make_root({"a": 1})
    palette = picture(12, 10, 3).quantize(8)
    palette.info["transparency"] = bytes(range(8))
    palette.save(root / "a" / "1.png", transparency=bytes(range(8)))
    grey, colour = (reads(root, resize="none", crop="none", channels=channels) for channels in (1, 3))
    assert (grey.shape[1:], colour.shape[1:]) == ((1, 10, 12), (3, 10, 12))
    expected = np.asarray(Image.open(root / "a" / "0000.png").convert("L"))
    assert torch.equal(grey[0, 0], torch.from_numpy(expected.copy()) / 255)


def test_sizes_that_differ_are_told(make_root: Maker) -> None:
    root = make_root({"a": 1})
    picture(9, 9, 1).save(root / "a" / "1.png")
    with pytest.raises(Prerequisite, match=r"1\.png has 9x9 pixels and the first one 12x10; give crop=PIXELS"):
        reads(root, resize="none", crop="none")
    assert reads(root, resize="none", crop=8).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "12x10 pixels in colour; images are resized to 256, cut to 224x224, read in colour. To keep them"),
        (",resize=none,crop=8,channels=1", "cut to 8x8, read in grey.*resize=none,crop=none,channels=3$"),
        (",resize=none,crop=none", "^$"),
    ],
)
def test_what_becomes_of_the_images_is_said(make_root: Maker, options: str, words: str) -> None:
    assert re.search(words, load_dataset(f"imagefolder:{make_root({'a': 2})}{options}", limit=1).note)


def test_linked_folders_are_read_as_torchvision_reads_them(make_root: Maker, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root, store = make_root({"cat": 2, "dog": 1}), make_root({"more": 4, "owls": 3}, "store")
    (root / "cat" / "linked").symlink_to(store / "more")
    (root / "dog" / "linked").symlink_to(Path("..", "cat"))
    (root / "owl").symlink_to(store / "owls")
    data, theirs = load_dataset(f"imagefolder:{root},resize=8,crop=8"), ImageFolder(str(root))
    assert data.classes == tuple(theirs.classes)
    assert data.labels.bincount().tolist() == [theirs.targets.count(label) for label in range(3)] == [6, 7, 3]


def test_links_that_go_round_in_circles_end(make_root: Maker) -> None:
    root = make_root({"cat/inner": 2, "dog": 1})
    (root / "cat" / "inner" / "above").symlink_to(root / "cat")
    (root / "cat" / "self").symlink_to("self")
    (root / "dog" / "everything").symlink_to(root)
    data = load_dataset(f"imagefolder:{root},resize=8,crop=8")
    assert data.labels.bincount().tolist() == [2, 3]  # the link to the root adds the cats
    (root / "dog" / "lost.png").symlink_to("nowhere.png")
    broken = load_dataset(f"imagefolder:{root},resize=8,crop=8,channels=1")
    with pytest.raises(Prerequisite, match=r"lost\.png cannot be read"):
        assert broken.content_hash


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"train/a": 20, "test/a": 3}, {"test": 3, "train": 18, "validation": 2, "trainval": 20}),
        ({"train/a": 20, "validation/a": 4}, {"test": 4, "train": 18, "validation": 2}),
        ({"Training/a": 20, "Valid/a": 4}, {"test": 4, "trainval": 20}),
        ({"train/a": 20, "val/a": 4, "test/a": 3}, {"test": 3, "train": 20, "validation": 4, "trainval": 24}),
        ({"train/a": 20, "val/a": 4, "test": 3}, {"test": 4, "train": 18}),  # ImageNet's test images are in no classes
        ({"test/a": 3}, {"test": 3}),
        ({"test": 3, "control": 2}, {"test": 5}),  # two classes
    ],
)
def test_parts_of_a_data_set_by_their_usual_names(
    make_root: Maker, counts: dict[str, int], sizes: dict[str, int]
) -> None:
    root = make_root(counts)
    found = {split: load_dataset(f"imagefolder:{root},resize=8,crop=8", split=split) for split in sizes}
    assert {split: len(data) for split, data in found.items()} == sizes
    if "trainval" in found and "train" in found:
        whole = found["trainval"].images(torch.arange(len(found["trainval"])))
        for split in ("train", "validation"):
            ids = found[split].ids
            assert torch.equal(found[split].images(torch.arange(len(ids))), whole[ids])


def test_a_part_under_two_names_is_not_guessed(make_root: Maker) -> None:
    with pytest.raises(Prerequisite, match="holds val and validation, which may both be its validation part"):
        load_dataset(f"imagefolder:{make_root({'train/a': 1, 'val/a': 1, 'validation/a': 1})}")


def test_names_that_are_not_utf8_are_read_and_shown(make_root: Maker) -> None:
    root = make_root({"cat": 2, "caf": 1})
    named = os.fsdecode(b"caf\xe9")
    shutil.move(root / "caf", root / named)
    shutil.move(root / "cat" / "0000.png", root / "cat" / os.fsdecode(b"\xff.png"))
    data = load_dataset(f"imagefolder:{root},resize=8,crop=8")
    assert data.classes == ("caf\\xe9", "cat")
    assert len(data.content_hash) == 64
    assert data.images(torch.arange(3)).shape == (3, 3, 8, 8)
    (root / named / "0000.png").write_bytes(b"none")
    with pytest.raises(Prerequisite, match=r"caf\\xe9/0000\.png cannot be read"):
        load_dataset(f"imagefolder:{root},resize=8,crop=8").images(torch.arange(3))
