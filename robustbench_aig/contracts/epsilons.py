"""Epsilons: exact sizes of the perturbation, read from ``8/255``, decimals and ranges."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from robustbench_aig.errors import UsageError

DEFAULTS = {"linf": "0:16/255:9", "l2": "0:1:5", "l1": "0:24:5", "l0": "0:32:5"}
"""Budgets where none are given, by norm. Those of L-infinity say nothing in another norm.

The middle ones are those that the field compares on CIFAR-10: 8/255 (RobustBench), 0.5 in L2 (RobustBench) and 12 in L1
(Croce and Hein 2021, "Mind the box")."""

LEVELS = 255
"""Steps between the darkest and the brightest 8-bit value."""

_NUMBER = re.compile(r"(\d{1,30}(\.\d{0,30})?|\.\d{1,30})(e[-+]?\d{1,2})?(/\d{1,30})?", re.IGNORECASE)
_MOST = 1000


@dataclass(frozen=True, order=True)
class Epsilon:
    """A budget, in pixel units of [0, 1] (a number of pixels in L0).

    Attributes:
        exact: its size; equal sizes are one budget, however they were written.
    """

    exact: Fraction

    @classmethod
    def of(cls, text: str) -> "Epsilon":
        """The epsilon that a number or a fraction such as ``8/255`` writes.

        Raises:
            UsageError: it is no number of at least 0.
        """
        return cls(_number(text))

    @property
    def value(self) -> float:
        """The nearest float, which attacks get."""
        return float(self.exact)

    @property
    def label(self) -> str:
        """How tables and figures write it: a short decimal, a fraction as short as ``1/3``, 8-bit levels (``8/255``),
        or else the fraction."""
        decimal, levels = _decimal(self.exact), _decimal(self.exact * LEVELS)
        if decimal is not None:
            return decimal
        return str(self.exact) if levels is None or self.exact.denominator < 10 else f"{levels}/{LEVELS}"


def parse_epsilons(texts: Iterable[str]) -> tuple[Epsilon, ...]:
    """Read epsilons, ascending and without repeats.

    Args:
        texts: each a comma-separated list of numbers (``0.03``), fractions (``8/255``) and ranges ``start:stop:count``
            (both ends included, evenly spaced).

    Raises:
        UsageError: nothing is given, or a part is no number of at least 0.
    """
    found = {Epsilon(value) for text in texts for part in text.split(",") for value in _part(part.strip())}
    if not found:
        raise UsageError("no epsilon is given; write for example --eps 0,2/255,8/255.")
    return tuple(sorted(found))


def default_epsilons(norms: Iterable[str]) -> tuple[Epsilon, ...]:
    """The epsilons of a sweep that names none.

    Args:
        norms: of its attacks.

    Raises:
        UsageError: they measure in different norms, which no one list fits.
    """
    distinct = sorted(set(norms), key=list(DEFAULTS).index)
    if len(distinct) > 1:
        kept = ", or ".join(f"--eps {DEFAULTS[norm]} with attacks in {norm}" for norm in distinct)
        raise UsageError(
            f"these attacks measure in {' and '.join(distinct)}, which share no budgets; sweep each norm for itself: "
            f"{kept}."
        )
    return parse_epsilons([DEFAULTS[norm] for norm in distinct or ["linf"]])


def check_epsilons(epsilons: Iterable[Epsilon], norm: str, image_shape: Sequence[int]) -> None:
    """Refuse budgets that cannot be meant: larger than any image, or in L0 no number of pixels.

    Args:
        epsilons: the budgets.
        norm: that they are measured in.
        image_shape: (C, H, W) of the images.

    Raises:
        UsageError: a budget is one of those.
    """
    values, pixels = math.prod(image_shape), math.prod(image_shape[1:])
    limits = {
        "linf": (1.0, "the range of a pixel, 0 to 1"),
        "l2": (math.sqrt(values), f"the distance of any two images of {values} values, {math.sqrt(values):.4g}"),
        "l1": (float(values), f"the distance of any two images of {values} values, {values}"),
        "l0": (float(pixels), f"the number of pixels of an image, {pixels}"),
    }
    if norm not in limits:
        return
    most, whole = limits[norm]
    for epsilon in epsilons:
        if epsilon.value > most:
            raise UsageError(
                f"--eps {epsilon.label} is larger in {norm} than {whole}; did you mean {_meant(epsilon, most)}?"
            )
        if norm == "l0" and epsilon.exact.denominator != 1:
            raise UsageError(
                f"--eps {epsilon.label} is no budget in l0, which counts changed pixels; give whole numbers, "
                f"such as --eps {DEFAULTS[norm]}."
            )


def _meant(epsilon: Epsilon, most: float) -> str:
    levels = f"{_decimal(epsilon.exact) or epsilon.exact}/{LEVELS}"
    return levels if epsilon.value <= LEVELS * most else f"at most {most:.4g}"


def _part(text: str) -> list[Fraction]:
    if ":" not in text:
        return [_number(text)]
    bounds = text.split(":")
    if len(bounds) != 3 or not bounds[2].isdecimal() or not 2 <= int(bounds[2]) <= _MOST:
        raise UsageError(
            f"epsilon range '{text}' is not understood; write start:stop:count, as in 0:16/255:9, "
            f"with a count from 2 to {_MOST}."
        )
    start, stop, count = _number(bounds[0]), _number(bounds[1]), int(bounds[2])
    return [start + (stop - start) * step / (count - 1) for step in range(count)]


def _decimal(value: Fraction) -> str | None:
    """A number that six digits write exactly, in that form."""
    text = f"{float(value):.6g}"
    return text if Fraction(text) == value else None


def _number(text: str) -> Fraction:
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"epsilon '{text}' is not a number of at least 0; write 8/255, 0.03 or 0:16/255:9.")
    try:
        return Fraction(text) if "/" not in text else Fraction(text.split("/")[0]) / Fraction(text.split("/")[1])
    except ZeroDivisionError:
        raise UsageError(f"epsilon '{text}' divides by zero; write for example 8/255.") from None
