"""The few lines of attack that checks need for themselves, independent of the attacks under audit."""

import math

import torch
from torch import Tensor

from robustbench_aig.contracts.target import Target, mean_margin


def ascend(target: Target, images: Tensor, labels: Tensor, size: float, steps: int) -> Tensor:
    """The images of largest margin on signed steps inside an Linf ball of size ``size``, from the clean images.

    Gradient and choice see the target's own draws, so a target of fixed noise is attacked under that noise.
    """
    points = best = images
    highest = torch.full((len(images),), -torch.inf, device=images.device)
    for step in range(steps + 1):
        values, gradient, _ = target.gradient(points, lambda view: mean_margin(view, labels), step)
        better = values > highest
        best = torch.where(better[:, None, None, None], points, best)
        highest = torch.where(better, values, highest)
        moved = points + 2.5 * size / steps * gradient.sign()
        points = (images + (moved - images).clamp(-size, size)).clamp(0, 1)
    return best


def random_steps(target: Target, images: Tensor, size: float, norm: str, draw: int) -> Tensor:
    """Images moved by ``size`` in a random direction: a corner of the Linf ball, or a point of the L2 sphere."""
    numbers = target.uniform(images[0].numel(), draw).view_as(images)
    if norm == "linf":
        offset = size * (numbers - 0.5).sign()
    else:
        normal = torch.special.ndtri(numbers.clamp(1e-6, 1 - 1e-6))
        offset = size * normal / normal.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return (images + offset).clamp(0, 1)


def per_pixel(size: float, norm: str, pixels: int) -> float:
    """The step of every pixel that a budget pays for: all of it in Linf, an even share in L2."""
    return size if norm == "linf" else size / math.sqrt(pixels)
