"""Bit-depth reduction."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defenses.rounding import soft_round
from robustbench_aig.contracts.defense import Defense, straight_through
from robustbench_aig.registry import register


@register("bitdepth", "fewer levels per channel", paper="Xu et al. 2018")
@dataclass(frozen=True)
class BitDepth(Defense):
    """Round every value to one of ``2**bits`` equally spaced levels from 0 to 1 (Xu et al., "Feature Squeezing", 2018).

    Args:
        bits: 1 to 8 bits per channel.

    Raises:
        ValueError: ``bits`` out of range.
    """

    bits: int = 5

    surrogates: ClassVar[tuple[str, ...]] = ("identity", "soft")

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bit depth must be an integer from 1 to 8, not {self.bits}")

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Round ``images`` to the levels; (N, C, H, W) in [0, 1] to the same."""
        levels: int = 2**self.bits - 1
        return (images.detach().clamp(0, 1) * levels).round() / levels

    def _surrogate(self, kind: str, images: Tensor, uniform: Tensor | None) -> Tensor:
        levels = 2**self.bits - 1
        values = images * levels
        return straight_through(self(images), soft_round(values, values.round()) / levels)
