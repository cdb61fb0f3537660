"""Geometry of the norm balls: steps, projections and random points, each per image."""

import math

import torch
from torch import Tensor

from robustbench_aig.contracts.attack import Norm
from robustbench_aig.contracts.target import Target

TINY = 1e-12
"""Keeps a division by the norm of a zero vector finite."""


def per_image(values: Tensor) -> Tensor:
    """(N,) values shaped (N, 1, 1, 1), to multiply images with."""
    return values.view(-1, 1, 1, 1)


def length(vectors: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean length of (N, C, H, W) vectors."""
    return per_image(vectors.flatten(1).norm(dim=1))


def size(offset: Tensor, norm: Norm) -> Tensor:
    """(N, 1, 1, 1) size of (N, C, H, W) perturbations in the norm."""
    return offset.abs().amax((1, 2, 3), keepdim=True) if norm == "linf" else length(offset)


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """(N, C, H, W) steepest ascent of unit size in the norm; zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    # scaling by the largest entry first keeps the squares of tiny gradients from underflowing
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / length(scaled).clamp_min(TINY)


def limit(offset: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Perturbations shortened to a radius of their own, (N, 1, 1, 1)."""
    if norm == "linf":
        return offset.minimum(radius).maximum(-radius)
    return offset * (radius / length(offset).clamp_min(TINY)).clamp_max(1.0)


def project(points: Tensor, centre: Tensor, budget: float, norm: Norm) -> Tensor:
    """Points moved into the ball around ``centre``, and then into [0, 1], which keeps them in the ball."""
    offset = points - centre
    if norm == "linf":
        offset = offset.clamp(-budget, budget)
    else:
        offset = offset * (budget / length(offset).clamp_min(TINY)).clamp_max(1.0)
    return (centre + offset).clamp(0, 1)


def uniform(target: Target, images: Tensor, draw: int) -> Tensor:
    """(N, C, H, W) uniform numbers in (0, 1), named by image id and ``draw``."""
    return target.uniform(images.shape[1:].numel(), draw).view_as(images)


def normal(target: Target, images: Tensor, draw: int) -> Tensor:
    """(N, C, H, W) standard normal numbers, named by image id and ``draw``."""
    size = images.shape[1:].numel()
    numbers = target.uniform(2 * size, draw)
    radius = (-2 * numbers[:, :size].clamp_min(TINY).log()).sqrt()
    return (radius * (2 * math.pi * numbers[:, size:]).cos()).view_as(images)


def random_point(target: Target, images: Tensor, budget: float, norm: Norm, draw: int) -> Tensor:
    """A point of the ball, clamped to [0, 1]: uniform in Linf; in L2 of uniform direction and radius."""
    if norm == "linf":
        return (images + budget * (2 * uniform(target, images, draw) - 1)).clamp(0, 1)
    offset = direction(normal(target, images, draw), "l2")
    radius = per_image(target.uniform(2 * images.shape[1:].numel() + 1, draw)[:, -1])
    return (images + budget * radius * offset).clamp(0, 1)
