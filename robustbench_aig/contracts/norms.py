"""The norms that perturbations are measured in, and how exactly float32 images keep a budget."""

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2", "l1", "l0"]

MOVED = 1e-6
"""A value that moves by less has not changed, as L0 counts; rounding alone moves values by up to 6e-8."""

ROUNDING = 2**-25
"""By how much at most a value in [0, 1] is rounded when it is stored in float32."""


def size(offset: Tensor, norm: Norm) -> Tensor:
    """Sizes of perturbations in a norm.

    Args:
        offset: (…, C, H, W) differences of images in [0, 1].
        norm: ``linf``, the largest difference of a value; ``l2``, the Euclidean length; ``l1``, the sum of the absolute
            differences; ``l0``, the number of pixels (places, whatever the number of channels) of which a value moves
            by more than ``MOVED``.

    Returns:
        (…); NaN where a difference is, which counts as a changed pixel in ``l0``.
    """
    flat = offset.flatten(-3)
    if norm == "linf":
        return flat.abs().amax(-1)
    if norm == "l2":
        length: Tensor = flat.norm(dim=-1)
        return length
    if norm == "l1":
        return flat.abs().sum(-1, dtype=torch.float64).to(offset.dtype)
    return (~(offset.abs() <= MOVED)).any(-3).sum((-2, -1)).to(offset.dtype)


def tolerance(norm: Norm, values: int) -> float:
    """How far above a budget the size of a stored image's perturbation may lie.

    Args:
        norm: of the budget.
        values: C x H x W of an image; in ``l1`` the rounding of each adds up.
    """
    return {"linf": 1e-6, "l2": 1e-5, "l1": 1e-5 + values * ROUNDING, "l0": 0.0}[norm]
