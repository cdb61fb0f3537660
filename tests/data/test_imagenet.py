from pathlib import Path

import pytest
import torch
from PIL import Image

from robustbench_aig.data import load_dataset
from robustbench_aig.data.imagenet import IMAGENETTE, class_names
from robustbench_aig.data.imagenet_categories import CATEGORIES
from robustbench_aig.errors import Prerequisite


def image_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.new("RGB", (256, 256), (10, 20, 30)).save(folder / "one.JPEG")


def test_category_sizes_and_partition() -> None:
    sizes = {name: len(members) for name, members in CATEGORIES.items()}
    assert (sizes["birds"], sizes["dogs"], sizes["animals"]) == (59, 118, 398)
    assert sizes["dogs"] + sizes["other mammals"] == 218
    parts = ("birds", "dogs", "other mammals", "reptiles", "other animals")
    assert sorted(index for part in parts for index in CATEGORIES[part]) == sorted(CATEGORIES["animals"])
    for members in CATEGORIES.values():
        assert list(members) == sorted(set(members))
        assert 0 <= members[0] <= members[-1] <= 999
    assert set(CATEGORIES["vehicles"]) | set(CATEGORIES["musical instruments"]) <= set(CATEGORIES["man-made objects"])
    apart = ("animals", "man-made objects", "food", "geological formations")
    assert sum(sizes[name] for name in apart) == len({index for name in apart for index in CATEGORIES[name]})


@pytest.mark.parametrize(
    ("category", "inside", "outside"),
    [
        (
            "birds",
            "cock|great grey owl|black grouse|black swan|white stork|albatross",
            "European fire salamander|tusker",
        ),
        ("dogs", "Chihuahua|Mexican hairless|English springer", "sea lion|timber wolf|dingo"),
        (
            "other mammals",
            "tusker|wombat|grey whale|sea lion|timber wolf|meerkat|giant panda",
            "jellyfish|tiger beetle",
        ),
        ("reptiles", "loggerhead|banded gecko|African crocodile|triceratops|sidewinder", "tailed frog|trilobite"),
        ("other animals", "trilobite|centipede|starfish|sea cucumber|tench|puffer|hermit crab", "wood rabbit|hen"),
        ("insects", "tiger beetle|lycaenid|ant", "starfish|meerkat|tarantula"),
        ("arachnids", "harvestman|tick|scorpion", "centipede|trilobite"),
        ("vehicles", "airliner|pirate|yawl|Model T|amphibian|school bus|unicycle", "shopping cart|car wheel|missile"),
        ("musical instruments", "accordion|upright|violin|French horn|drum", "drumstick|whistle|pick|cassette"),
        ("man-made objects", "abacus|menu|traffic light", "honeycomb|spider web|puffer|guacamole"),
        ("food", "guacamole|dough|eggnog|mushroom|espresso", "hay|cup|plate|alp|daisy"),
        ("geological formations", "alp|volcano|coral reef", "bubble|ballplayer"),
    ],
)
def test_categories_by_name(category: str, inside: str, outside: str) -> None:
    members = {class_names()[index] for index in CATEGORIES[category]}
    assert set(inside.split("|")) <= members
    assert not set(outside.split("|")) & members
    assert set(outside.split("|")) <= set(class_names())


def test_imagenet_labels_are_the_sorted_wnids(tmp_path: Path) -> None:
    wnids = [f"n{number:08}" for number in range(1000, 2000)]
    for wnid in wnids:
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
    for label in (0, 7, 999):
        (tmp_path / "imagenet" / "val" / wnids[label]).rmdir()
        image_in(tmp_path / "imagenet" / "val" / wnids[label])
    test = load_dataset("imagenet", data_dir=tmp_path)
    assert test.labels.tolist() == [0, 7, 999]
    assert [test.classes[label] for label in test.labels] == ["tench", "cock", "toilet tissue"]
    assert test.images(torch.tensor([1])).shape == (1, 3, 224, 224)


def test_part_of_imagenet_is_not_called_imagenet(tmp_path: Path) -> None:
    image_in(tmp_path / "ILSVRC2012" / "val" / "n01440764")
    with pytest.raises(Prerequisite, match="1 class folders where ImageNet has 1000"):
        load_dataset("imagenet", data_dir=tmp_path)


def test_imagenette_in_both_labellings(tmp_path: Path) -> None:
    for wnid in IMAGENETTE:
        image_in(tmp_path / "imagenette2" / "val" / wnid)
    own = load_dataset("imagenette", data_dir=tmp_path)
    full = load_dataset("imagenette:imagenet", data_dir=tmp_path)
    assert (own.name, full.name) == ("imagenette", "imagenette:imagenet")
    assert (own.image_shape, full.image_shape) == ((3, 128, 128), (3, 224, 224))
    assert own.labels.tolist() == list(range(10))
    assert full.labels.tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert [own.classes[label] for label in own.labels] == [full.classes[label] for label in full.labels]
    assert [own.classes[label] for label in own.categories["animals"]] == ["tench", "English springer"]
    assert set(own.categories["animals"] + own.categories["man-made objects"]) == set(range(10))


def test_other_classes_are_not_called_imagenette(tmp_path: Path) -> None:
    image_in(tmp_path / "imagenette" / "val" / "n01440764")
    with pytest.raises(Prerequisite, match="other class folders than Imagenette's ten"):
        load_dataset("imagenette", data_dir=tmp_path)


@pytest.mark.data
def test_real_imagenette(imagenette_dir: Path) -> None:
    test = load_dataset("imagenette", data_dir=imagenette_dir, limit=50)
    assert test.labels.bincount().tolist() == [5] * 10
    images = test.images(torch.arange(50))
    assert images.shape == (50, 3, 128, 128)
    assert 0.2 < images.mean() < 0.7
    path = imagenette_dir / "imagenette128" / "val"
    file = sorted(path.glob("*/*.JPEG"))[int(test.ids[3])]
    assert list(IMAGENETTE).index(file.parent.name) == test.labels[3]
    with Image.open(file) as stored:  # 128 pixels as stored: neither resized nor cropped
        assert stored.convert("RGB").tobytes() == test.uint8(torch.tensor([3]))[0].permute(1, 2, 0).numpy().tobytes()
    sizes = {
        split: len(load_dataset("imagenette", split=split, data_dir=imagenette_dir))
        for split in ("train", "validation")
    }
    assert sizes == {"train": 8522, "validation": 947}


def test_missing_imagenet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Prerequisite, match=r"imagenet, .*ILSVRC2012.* get it from image-net\.org"):
        load_dataset("imagenet", data_dir=tmp_path)
    with pytest.raises(Prerequisite, match=r"Imagenette was not found .*imagenette128"):
        load_dataset("imagenette", data_dir=tmp_path)
