"""JPEG compression."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from defenses import jpeg_codec
from defenses.soft_jpeg import soft_jpeg
from robustbench_aig.contracts.defense import Defense, straight_through
from robustbench_aig.registry import register


@register("jpeg", "JPEG round trip, 4:2:0", paper="Guo et al. 2018")
@dataclass(frozen=True)
class Jpeg(Defense):
    """Store as 8-bit JPEG and load again (Dziugaite et al. 2016; Guo et al. 2018), by libjpeg-turbo on the CPU.

    Surrogates: ``identity`` is BPDA (Athalye et al. 2018); ``soft`` runs the real codec and differentiates
    ``soft_jpeg`` (Shin & Song 2017), usually the strongest; ``end-to-end`` is ``soft_jpeg`` in both directions.

    Args:
        quality: 1 to 100, libjpeg's scale.
        quantize: how images become 8-bit; ``floor`` is what Guo et al.'s code does, ``round`` keeps 8-bit images exact.
        subsampling: of chroma: ``420`` (halved both ways, the usual) or ``444`` (none).

    Raises:
        ValueError: a parameter out of range.
    """

    quality: int = 75
    quantize: Literal["round", "floor"] = "round"
    subsampling: jpeg_codec.Subsampling = "420"

    surrogates: ClassVar[tuple[str, ...]] = ("identity", "soft", "end-to-end")

    def __post_init__(self) -> None:
        if not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality must be an integer from 1 to 100, not {self.quality}")
        if self.quantize not in ("round", "floor"):
            raise ValueError(f"JPEG quantize must be round or floor, not {self.quantize}")
        if self.subsampling not in ("420", "444"):
            raise ValueError(f"JPEG subsampling must be 420 or 444, not {self.subsampling}")

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Compress and decompress; each image's bits depend on that image only.

        Args:
            images: (N, C, H, W) in [0, 1], C = 1 or 3, any H and W.

        Returns:
            Same shape and device, float32, multiples of 1/255.

        Raises:
            ValueError: C is neither 1 nor 3.
        """
        _check(images)
        scaled = images.detach().clamp(0, 1) * 255
        levels = (scaled.round() if self.quantize == "round" else scaled.floor()).to("cpu", torch.uint8)
        grey = images.shape[1] == 1
        pixels = (levels[:, 0] if grey else levels.permute(0, 2, 3, 1)).contiguous().numpy()
        decoded = torch.from_numpy(jpeg_codec.round_trip(pixels, self.quality, self.subsampling))
        decoded = decoded[:, None] if grey else decoded.permute(0, 3, 1, 2)
        return decoded.contiguous().to(images.device).float() / 255

    def _surrogate(self, kind: str, images: Tensor, uniform: Tensor | None) -> Tensor:
        _check(images)
        model = soft_jpeg(images, self.quality, self.subsampling, self.quantize)
        return straight_through(self(images), model) if kind == "soft" else model

    def record(self) -> dict[str, Any]:
        """Codec, Pillow and libjpeg-turbo versions, golden hash, and a ``warning`` (or None) about the pixels."""
        return dict(jpeg_codec.provenance())


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"JPEG takes images of shape (N, 1 or 3, H, W), not {tuple(images.shape)}")
