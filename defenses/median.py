"""Median filter."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from robustbench_aig.contracts.defense import Defense
from robustbench_aig.registry import register


@register("median", "3x3 median filter", paper="Xu et al. 2018")
@dataclass(frozen=True)
class Median(Defense):
    """The median of each 3x3 neighbourhood, per channel, borders repeated (Xu et al., "Feature Squeezing", 2018).

    The filter is piecewise linear, so its own gradient (``end-to-end``) reaches one pixel of each neighbourhood;
    ``identity`` reaches all of them.
    """

    surrogates: ClassVar[tuple[str, ...]] = ("identity", "end-to-end")

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Filter ``images``; (N, C, H, W) in [0, 1] to the same."""
        height, width = images.shape[-2:]
        padded = pad(images, (1, 1, 1, 1), mode="replicate")
        shifted = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
        return torch.stack(shifted).median(dim=0).values
