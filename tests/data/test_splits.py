import pytest
import torch

from robustbench_aig.data import load_dataset
from robustbench_aig.data.splits import hold_out, stratified_order


def digits_ids(split: str, limit: int | None = None, seed: int = 0) -> list[int]:
    ids: list[int] = load_dataset("digits", split=split, limit=limit, seed=seed).ids.tolist()
    return ids


def test_order_is_a_permutation_whose_prefixes_are_proportional() -> None:
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate((600, 300, 90, 10))])
    order = stratified_order(torch.arange(1000), labels, 7)
    assert order.sort().values.tolist() == list(range(1000))
    for count in (1, 17, 100, 500, 999):
        got = labels[order[:count]].bincount(minlength=4)
        wanted = count * labels.bincount() / 1000
        assert (got - wanted).abs().max() <= 1.0 + 1e-9


def test_balanced_classes_stay_balanced_to_one_image() -> None:
    labels = torch.arange(500) % 10
    order = stratified_order(torch.arange(500), labels, 0)
    for count in range(1, 500, 13):
        counts = labels[order[:count]].bincount(minlength=10)
        assert counts.max() - counts.min() <= 1


def test_choice_is_by_number_not_by_row() -> None:
    ids = torch.arange(200) * 3 + 5
    labels = torch.arange(200) % 4
    back = torch.arange(199, -1, -1)
    forwards = ids[stratified_order(ids, labels, 1)]
    assert torch.equal(forwards, ids[back][stratified_order(ids[back], labels[back], 1)])


def test_choice_is_the_same_everywhere() -> None:
    labels = torch.arange(12) % 3
    assert stratified_order(torch.arange(12), labels, 0).tolist() == [8, 10, 0, 2, 1, 6, 11, 4, 3, 5, 7, 9]


def test_choice_looks_random_and_follows_the_seed() -> None:
    labels = torch.zeros(10_000, dtype=torch.int64)
    first = stratified_order(torch.arange(10_000), labels, 0)
    assert abs(first[:1000].double().mean() - 4999.5) < 4 * 2887 / 1000**0.5
    for seed in (1, 2, 1 << 63):
        second = stratified_order(torch.arange(10_000), labels, seed)
        shared = len(set(first[:1000].tolist()) & set(second[:1000].tolist()))
        assert 60 <= shared <= 140  # 100 expected, deviation 9


def test_hold_out_parts_are_disjoint_ascending_and_complete() -> None:
    labels = torch.arange(100) % 5
    rest, held_out = hold_out(torch.arange(100), labels, 20)
    assert rest.tolist() == sorted(set(range(100)) - set(held_out.tolist()))
    assert held_out.tolist() == sorted(held_out.tolist())
    assert labels[held_out].bincount().tolist() == [4] * 5


def test_digits_splits_are_disjoint_and_complete() -> None:
    train, validation, trainval, test = (
        set(digits_ids(split)) for split in ("train", "validation", "trainval", "test")
    )
    assert (len(train), len(validation), len(trainval), len(test)) == (1167, 130, 1297, 500)
    assert train | validation == trainval
    assert not train & validation
    assert trainval | test == set(range(1797))
    assert not trainval & test


def test_digits_labels_and_pixels_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    test = load_dataset("digits")
    assert test.labels.tolist() == bunch.target[test.ids.numpy()].tolist()
    grey = torch.from_numpy(bunch.images[test.ids.numpy()]).unsqueeze(1)
    assert ((test.images(torch.arange(500)) - grey / 16).abs() <= 0.5 / 255 + 1e-6).all()
    assert set(test.uint8(torch.arange(500)).unique().tolist()) == {round(level * 255 / 16) for level in range(17)}
    assert {name: [test.classes[c] for c in group] for name, group in test.categories.items()} == {
        "even": ["0", "2", "4", "6", "8"],
        "odd": ["1", "3", "5", "7", "9"],
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_limits_are_nested_sorted_and_balanced(split: str) -> None:
    whole = digits_ids(split)
    previous: set[int] = set()
    for limit in (1, 10, 57, 100, 400):
        chosen = digits_ids(split, limit)
        assert chosen == sorted(chosen)
        assert len(chosen) == limit
        assert previous < set(chosen) <= set(whole)
        previous = set(chosen)
    counts = load_dataset("digits", split=split, limit=100).labels.bincount(minlength=10)
    assert counts.min() >= 9
    assert counts.max() <= 11
    assert digits_ids(split, len(whole)) == digits_ids(split, 10**9) == whole
    assert digits_ids(split, 100, seed=1) != digits_ids(split, 100, seed=0)
