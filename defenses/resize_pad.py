"""Random resizing and padding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_aig.contracts.defense import Defense
from robustbench_aig.registry import register


@register("resize-pad", "random resize and pad", paper="Xie et al. 2018", deterministic=False)
@dataclass(frozen=True)
class ResizePad(Defense):
    """Enlarge by a random factor (nearest neighbour), then place at random on a grey canvas of fixed size.

    Xie et al., "Mitigating adversarial effects through randomization" (2018): 299 pixels become U[299, 331) on a canvas
    of 331. Other sizes keep that ratio, rounded up: 32 pixels become U[32, 36) on 36. The result is larger than the
    image, as in the paper, so the classifier must accept that size (see ``output_shape``).
    """

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Resize and pad; differentiable.

        Args:
            images: (N, C, H, W) in [0, 1].
            uniform: (N, 3) in (0, 1): size, vertical and horizontal position.

        Returns:
            (N, C, H', W') with H', W' from ``output_shape``.
        """
        size, top, left = self._expect(images, uniform).to(images.device).unbind(1)
        rows, inside_rows = _sources(size, top, images.shape[2])
        columns, inside_columns = _sources(size, left, images.shape[3])
        image = torch.arange(len(images), device=images.device)
        # Indexed dimensions that a slice separates come first: (N, H', W', C).
        enlarged = images[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
        return torch.where(inside, enlarged, 0.5)

    def uniforms(self, image_shape: tuple[int, int, int]) -> int:
        """Three: size, vertical position, horizontal position."""
        return 3

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, ceil(331/299 H), ceil(331/299 W))."""
        channels, height, width = image_shape
        return channels, _canvas(height), _canvas(width)


def _canvas(length: int) -> int:
    return -(-length * 331 // 299)


def _sources(size: Tensor, offset: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """For each canvas position the image position it shows, and whether it shows any: (N, canvas) both."""
    canvas = _canvas(length)
    enlarged = length + _index(size, canvas - length)
    start = _index(offset, canvas - enlarged)
    position = torch.arange(canvas, device=size.device) - start[:, None]
    inside = (position >= 0) & (position < enlarged[:, None])
    source = torch.div(position * length, enlarged[:, None], rounding_mode="floor").clamp(0, length - 1)
    return source, inside


def _index(uniform: Tensor, count: int | Tensor) -> Tensor:
    """Integers below ``count``, equally likely; float32 may round up to ``count`` itself, hence the minimum."""
    most = torch.as_tensor(count, device=uniform.device) - 1
    return torch.minimum((uniform * count).long(), most)
