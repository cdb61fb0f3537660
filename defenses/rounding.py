"""Gradients for functions that have none: straight-through substitution and soft rounding."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """``value`` bit for bit, with the gradient of ``source`` (BPDA, Athalye et al. 2018); both of one shape."""
    result: Tensor = _StraightThrough.apply(value.detach(), source)
    return result


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
