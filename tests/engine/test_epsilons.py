"""Epsilons are exact, ordered and without repeats; everything else is refused in one sentence."""

from fractions import Fraction

import pytest

from robustbench_aig.contracts.epsilons import Epsilon, check_epsilons, default_epsilons, parse_epsilons
from robustbench_aig.errors import UsageError


def labels(*texts: str) -> list[str]:
    return [epsilon.label for epsilon in parse_epsilons(texts)]


def test_fractions_decimals_and_ranges() -> None:
    assert labels("8/255,0,2/255") == ["0", "2/255", "8/255"]
    assert labels("0:16/255:9") == ["0", *(f"{k}/255" for k in range(2, 17, 2))]
    assert labels("0:0.3:7") == ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
    assert labels("0.5/255") == ["0.5/255"]
    assert labels("0:1:4") == ["0", "1/3", "2/3", "1"]


def test_values_are_the_nearest_floats() -> None:
    for epsilon in parse_epsilons(["0:16/255:9", "0.047"]):
        assert epsilon.value == float(Fraction(epsilon.label))


def test_equal_values_are_one_epsilon_however_they_are_written() -> None:
    assert labels("0.1", ".1", "0.10", "1e-1") == ["0.1"]
    assert labels("2/255", "4/510", "0:16/255:9") == labels("0:16/255:9")
    assert labels("0/255", "0.0") == ["0"]


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-1/255",
        "nan",
        "inf",
        "8/0",
        "eight",
        "",
        "1,",
        "1e999",
        "1e999999999",
        "1//2",
        "0:1",
        "0:1:1",
        "0:1:10000000",
    ],
)
def test_what_is_no_epsilon_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="epsilon") as caught:
        parse_epsilons([text])
    assert "\n" not in str(caught.value)


def test_two_ways_to_write_a_budget_are_one_budget() -> None:
    one, other = Epsilon.of("8/255"), Epsilon.of("16/510")
    assert (one, one.label, hash(one)) == (other, "8/255", hash(other))
    assert Epsilon.of("51/255") == Epsilon.of("0.2")
    assert Epsilon.of("0.1") < Epsilon.of("0.1000001")


@pytest.mark.parametrize(
    ("norm", "text", "message"),
    [
        ("linf", "8", r"--eps 8 is larger in linf than the range of a pixel, 0 to 1; did you mean 8/255\?"),
        ("linf", "0,2.5", "did you mean 2.5/255"),
        ("linf", "300", "did you mean at most 1"),
        ("l2", "9", "distance of any two images of 64 values, 8; did you mean 9/255"),
        ("l1", "65", "l1"),
        ("l0", "65", "the number of pixels of an image, 64"),
        ("l0", "8/255", "counts changed pixels; give whole numbers"),
    ],
)
def test_budgets_that_cannot_be_meant_are_refused(norm: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_epsilons(parse_epsilons([text]), norm, (1, 8, 8))
    assert "\n" not in str(caught.value)


def test_the_largest_budgets_are_not_refused() -> None:
    for norm, text in (("linf", "1"), ("l2", "8"), ("l1", "64"), ("l0", "64")):
        check_epsilons(parse_epsilons([text]), norm, (1, 8, 8))


def test_every_norm_has_budgets_of_its_own() -> None:
    assert default_epsilons(["linf"]) == default_epsilons([]) == parse_epsilons(["0:16/255:9"])
    assert [epsilon.label for epsilon in default_epsilons(["l2", "l2"])] == ["0", "0.25", "0.5", "0.75", "1"]
    assert Epsilon.of("12") in default_epsilons(["l1"])
    check_epsilons(default_epsilons(["l0"]), "l0", (1, 8, 8))
    with pytest.raises(UsageError, match=r"linf and l2, which share no budgets.*--eps 0:1:5 with attacks in l2"):
        default_epsilons(["l2", "linf"])


def test_none_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no epsilon"):
        parse_epsilons([])
