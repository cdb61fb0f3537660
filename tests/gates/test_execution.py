"""Groups of images keep apart whatever classes and categories are called."""

import numpy as np

from robustbench_aig.gates.execution import groups

LABELS = np.array([0, 0, 1, 2, 2, 2])


def sizes(classes: tuple[str, ...], categories: dict[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in groups(LABELS, classes, categories).items()}


def test_groups_are_all_then_categories_then_classes_with_images() -> None:
    found = sizes(("cat", "dog", "owl", "emu"), {"birds": (2, 3), "fish": (3,)})
    assert found == {"all": 6, "birds": 3, "cat": 2, "dog": 1, "owl": 3}
    assert list(found) == ["all", "birds", "cat", "dog", "owl"]


def test_a_class_called_all_is_not_the_group_of_all_images() -> None:
    assert sizes(("all", "dog", "none"), {}) == {"all": 6, "class all": 2, "dog": 1, "none": 3}


def test_names_that_are_taken_get_their_kind() -> None:
    assert sizes(("birds", "dog", "owl"), {"birds": (0, 2)}) == {
        "all": 6,
        "birds": 5,
        "class birds": 2,
        "dog": 1,
        "owl": 3,
    }
    assert sizes(("crane", "crane", "crane"), {}) == {"all": 6, "crane": 2, "class crane": 1, "class crane (2)": 3}
    assert sizes(("class all", "all", "dog"), {"all": (0,)}) == {
        "all": 6,
        "category all": 2,
        "class all": 2,
        "class all (1)": 1,
        "dog": 3,
    }
