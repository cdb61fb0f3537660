"""Epsilons are exact, ordered and without repeats; everything else is refused in one sentence."""

from fractions import Fraction

import pytest

from robustbench_aig.contracts.epsilons import parse_epsilons
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


def test_none_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no epsilon"):
        parse_epsilons([])
