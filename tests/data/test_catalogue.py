import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_aig.data import CATALOGUE, NAMES, load_dataset
from robustbench_aig.errors import UsageError


def test_names_need_no_torch() -> None:
    code = "import sys; from robustbench_aig.data import NAMES; assert NAMES; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", ["digits", "foolbox:cifar10", "foolbox:imagenet"])
def test_card_says_what_is_loaded(name: str) -> None:
    card = CATALOGUE[name]
    dataset = load_dataset(name)
    assert (dataset.name, dataset.image_shape, len(dataset.classes)) == (name, card.image_shape, card.classes)
    assert card.source == "bundled"


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"unknown dataset 'cifar-10'; did you mean .*cifar10"):
        load_dataset("cifar-10")


@pytest.mark.parametrize(
    "name", ["", "imagefolder", "imagefolder:", "imagefolder:PATH", "imagenette:", "foolbox:mnist"]
)
def test_incomplete_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown dataset"):
        load_dataset(name)


def test_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no split 'val'; it has: train, validation, trainval, test"):
        load_dataset("digits", split="val")
    with pytest.raises(UsageError, match="no split 'train'; it has: test"):
        load_dataset("foolbox:cifar10", split="train")


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused_before_anything_is_read(limit: int) -> None:
    for name in NAMES:
        if name != "imagefolder:PATH":
            with pytest.raises(UsageError, match=f"at least 1, not {limit}"):
                load_dataset(name, limit=limit)
