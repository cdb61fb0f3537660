import pickle
from pathlib import Path

import pytest
import torch

from robustbench_aig.data import load_dataset
from robustbench_aig.errors import Prerequisite


@pytest.mark.data
def test_test_split_is_the_official_one(cifar10_dir: Path) -> None:
    test = load_dataset("cifar10", data_dir=cifar10_dir)
    raw = pickle.loads((cifar10_dir / "cifar-10-batches-py" / "test_batch").read_bytes(), encoding="bytes")
    assert test.labels.tolist() == raw[b"labels"]
    assert test.uint8(torch.arange(10_000)).numpy().tobytes() == raw[b"data"].tobytes()
    names = pickle.loads((cifar10_dir / "cifar-10-batches-py" / "batches.meta").read_bytes())["label_names"]
    assert list(test.classes) == names
    assert [test.classes[label] for label in test.categories["birds"]] == ["bird"]
    assert sorted(test.categories["animals"] + test.categories["vehicles"]) == list(range(10))


@pytest.mark.data
def test_training_set_is_split_once_and_never_overlaps(cifar10_dir: Path) -> None:
    train = load_dataset("cifar10", split="train", data_dir=cifar10_dir)
    validation = load_dataset("cifar10", split="validation", data_dir=cifar10_dir)
    assert train.labels.bincount().tolist() == [4500] * 10
    assert validation.labels.bincount().tolist() == [500] * 10
    assert sorted(train.ids.tolist() + validation.ids.tolist()) == list(range(50_000))
    assert (
        validation.index_hash == "5c154c5ecaf7a295e047e9a6c484412ba8e1225926a0d9052b02f23a3d00eeda"
    )  # committed weights were selected on exactly these images


@pytest.mark.data
def test_limits_are_nested(cifar10_dir: Path) -> None:
    small, large = (load_dataset("cifar10", data_dir=cifar10_dir, limit=limit) for limit in (100, 1000))
    assert set(small.ids.tolist()) < set(large.ids.tolist())
    assert large.labels.bincount().tolist() == [100] * 10
    whole = load_dataset("cifar10", data_dir=cifar10_dir)
    assert torch.equal(whole.uint8(small.ids), small.uint8(torch.arange(100)))


def test_missing_names_every_place_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTBENCH_AIG_DATA", raising=False)
    with pytest.raises(Prerequisite, match=r"looked for data/cifar-10-batches-py\); add --download"):
        load_dataset("cifar10")
    monkeypatch.setenv("ROBUSTBENCH_AIG_DATA", "other")
    with pytest.raises(Prerequisite, match=r"looked for other/cifar-10-batches-py, data/cifar-10-batches-py\)"):
        load_dataset("cifar10")
    with pytest.raises(Prerequisite, match=r"looked for mine/cifar-10-batches-py\)"):
        load_dataset("cifar10", data_dir=Path("mine"))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"half a file")
    with pytest.raises(Prerequisite, match=r"is damaged or incomplete; remove that folder"):
        load_dataset("cifar10", data_dir=tmp_path)
