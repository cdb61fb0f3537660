import os
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
    with pytest.raises(Prerequisite, match="no folder 'train', which holds the split 'train'"):
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


@pytest.mark.parametrize("options", ["resize=8,crop=9", "crop=0", "crop=none"])
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
        ({"train/cat": 1}, "no folder 'val'"),
    ],
)
def test_folder_that_holds_nothing_usable(make_root: Maker, counts: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_dataset(f"imagefolder:{make_root(counts)}")
