"""Random crops and flips of whole batches, on whatever device the images are."""

import torch
from torch import Tensor

from robustbench_aig.training.recipe import Recipe


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Randomly cropped and mirrored copies of uint8 or float images (N, C, H, W), each image with draws of its own.

    Args:
        images: the batch.
        recipe: says which augmentations.
        generator: a CPU generator; all draws come from it.
    """
    if recipe.resized_crop:
        images = _resized_crop(images, recipe.crop_size, generator)
    elif recipe.crop_padding:
        images = _padded_crop(images, recipe.crop_padding, generator)
    if recipe.flip:
        mirror = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        images = torch.where(mirror[:, None, None, None], images.flip(3), images)
    return images


def _padded_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=generator).to(images.device)
    rows = (offsets[0][:, None] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (offsets[1][:, None] + torch.arange(width, device=images.device))[:, None, None, :]
    batch = torch.arange(n, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[batch, channels, rows, columns]


def _resized_crop(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Crops of 25 to 100 % of the area with an aspect ratio of 3/4 to 4/3, resampled (bilinear) to ``side`` pixels, or
    to full size where that is 0."""
    n, _, height, width = images.shape
    if side:
        height = width = side
    u = torch.rand((4, n), generator=generator).to(images.device)
    area = 0.25 + 0.75 * u[0]
    ratio = torch.exp((2 * u[1] - 1) * torch.log(torch.tensor(4 / 3)))
    scale_y, scale_x = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    shift_y, shift_x = (1 - scale_y) * (2 * u[2] - 1), (1 - scale_x) * (2 * u[3] - 1)
    zero = torch.zeros_like(area)
    matrix = torch.stack([torch.stack([scale_x, zero, shift_x], 1), torch.stack([zero, scale_y, shift_y], 1)], 1)
    grid = torch.nn.functional.affine_grid(matrix, [n, 1, height, width], align_corners=False)
    kind = images.dtype
    crops = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return crops.round().to(kind) if kind == torch.uint8 else crops
