"""Soft rounding: a differentiable function that is close to rounding."""

from torch import Tensor


def soft_round(values: Tensor, rounded: Tensor) -> Tensor:
    """``rounded + (values - rounded)^3``: close to rounding, with slope ``3 (values - rounded)^2``.

    The slope is 0 where rounding forgets the value and 3/4 half-way between two integers, where a small change counts
    (Shin & Song, "JPEG-resistant adversarial images", 2017).

    Args:
        values: any shape.
        rounded: the same shape, the integers that ``values`` round to.
    """
    rounded = rounded.detach()
    return rounded + (values - rounded) ** 3
