"""A part of the matrix in which the audit is measured; ``python -m tests.audit.matrix`` runs all of it."""

import pytest
import torch

from tests.audit import matrix


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("digits resnet20", "three budgets"),
        ("digits LeNet", "tiny and huge"),
        ("digits LeNet", "l2"),
        ("digits LeNet", "one large budget"),
        ("digits LeNet", "l1"),
        ("digits LeNet", "auto"),
        ("digits LeNet, median", "three budgets"),
        ("digits smooth", "l0"),
        ("digits smooth", "weak and strong"),
        ("digits fully connected", "momentum"),
        ("digits fully connected", "one tiny budget"),
        ("digits exit20", "one large budget"),
    ],
)
def test_sound_models_raise_no_alarm(name: str, wanted: str) -> None:
    assert matrix.alarms(name, wanted) == set()


@pytest.mark.parametrize("name", [name for name, flaw in matrix.BROKEN.items() if flaw.quick])
def test_broken_models_are_found(name: str) -> None:
    lists = matrix.BROKEN[name].lists
    wanted = lists[len(name) % len(lists)]  # other budgets for other models
    miss, told = matrix.missed(name, wanted)
    assert not miss, f"{wanted}: {sorted(told)}"


def test_the_matrix_is_as_large_as_it_should_be() -> None:
    assert len(matrix.SOUND) >= 12
    assert len(matrix.LISTS) >= 8
    assert len(matrix.BROKEN) >= 25
