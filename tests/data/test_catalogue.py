import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_aig.data import load_dataset, registry
from robustbench_aig.errors import UsageError


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from robustbench_aig import data; list(data.registry.entries()); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", ["digits", "foolbox:cifar10", "foolbox:imagenet"])
def test_card_says_what_is_loaded(name: str) -> None:
    facts = registry.entry(name).facts
    dataset = load_dataset(name)
    assert (dataset.name, dataset.image_shape, len(dataset.classes)) == (name, facts["image_shape"], facts["classes"])
    assert facts["source"] == "bundled"


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"unknown dataset 'cifar-10'; did you mean .*cifar10"):
        load_dataset("cifar-10")


@pytest.mark.parametrize("name", ["imagefolder", "imagefolder:", "imagefolder:PATH"])
def test_a_folder_without_its_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"dataset '{name}' is incomplete"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["", "foolbox", "foolbox:mnist", "digits2"])
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown dataset '{name}'"):
        load_dataset(name)


def test_a_data_set_takes_no_parameters() -> None:
    with pytest.raises(UsageError, match="'digits' takes no parameters; leave ':size=8' out"):
        load_dataset("digits:size=8")


def test_unknown_split_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no split 'val'; it has: train, validation, trainval, test"):
        load_dataset("digits", split="val")
    with pytest.raises(UsageError, match="no split 'train'; it has: test"):
        load_dataset("foolbox:cifar10", split="train")


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused_before_anything_is_read(limit: int) -> None:
    for entry in registry.entries():
        name = f"{entry.family}:anywhere" if entry.family else entry.name
        with pytest.raises(UsageError, match=f"at least 1, not {limit}"):
            load_dataset(name, limit=limit)
