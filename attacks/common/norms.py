"""Geometry of the norm balls: steps, projections and random points, each per image."""

import math

import torch
from torch import Tensor

from robustbench_aig.contracts import norms
from robustbench_aig.contracts.norms import Norm
from robustbench_aig.contracts.target import Target

SPARSE = 0.01
"""Share of the values that a step in L1 moves."""

TINY = 1e-12
"""Keeps a division by the norm of a zero vector finite."""


def per_image(values: Tensor) -> Tensor:
    """(N,) values shaped (N, 1, 1, 1), to multiply images with."""
    return values.view(-1, 1, 1, 1)


def size(offset: Tensor, norm: Norm) -> Tensor:
    """(N, 1, 1, 1) size of (N, C, H, W) perturbations in the norm."""
    return per_image(norms.size(offset, norm))


def length(vectors: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean length of (N, C, H, W) vectors."""
    return size(vectors, "l2")


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """(N, C, H, W) steepest ascent of unit size in Linf or L2; zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    # scaling by the largest entry first keeps the squares of tiny gradients from underflowing
    scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / length(scaled).clamp_min(TINY)


def climb(points: Tensor, gradient: Tensor, distance: float | Tensor, norm: Norm) -> Tensor:
    """Points (N, C, H, W) after a step along the gradient, which may leave the box.

    In L1 steepest ascent moves one value only. The step is shared by the ``SPARSE`` of the values with the largest
    gradients among those that the box lets move (Tramer and Boneh, "Adversarial training and robustness for multiple
    perturbations", 2019).

    Args:
        points: in [0, 1].
        gradient: of what should grow.
        distance: length of the step in the norm; a number, or (N, 1, 1, 1).
        norm: ``linf``, ``l2`` or ``l1``.
    """
    if norm != "l1":
        return points + distance * direction(gradient, norm)
    free = torch.where(gradient > 0, points < 1, points > 0)
    strength = gradient.abs().where(free, 0).flatten(1)
    largest = strength.topk(max(1, round(SPARSE * strength.shape[1])), dim=1)
    chosen = torch.zeros_like(strength).scatter(1, largest.indices, (largest.values > 0).to(strength.dtype))
    chosen = chosen / chosen.sum(1, keepdim=True).clamp_min(1)
    return points + distance * gradient.sign() * chosen.view_as(points)


def limit(offset: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Perturbations shortened to a radius of their own, (N, 1, 1, 1), in Linf or L2."""
    if norm == "linf":
        return offset.minimum(radius).maximum(-radius)
    return offset * (radius / length(offset).clamp_min(TINY)).clamp_max(1.0)


def project(points: Tensor, centre: Tensor, budget: float, norm: Norm) -> Tensor:
    """Points moved into the ball around ``centre``, and into [0, 1]; ``linf``, ``l2`` or ``l1``.

    In Linf and L1 the result is the nearest point of ball and box; in L2 it is moved into one and then into the other,
    which keeps it in the ball.
    """
    offset = points - centre
    if norm == "linf":
        offset = offset.clamp(-budget, budget)
    elif norm == "l2":
        offset = offset * (budget / length(offset).clamp_min(TINY)).clamp_max(1.0)
    else:
        offset = _shrunk(offset, centre, budget)
    return (centre + offset).clamp(0, 1)


def _shrunk(offset: Tensor, centre: Tensor, budget: float) -> Tensor:
    """The nearest offset that is in the L1 ball and stays in the box (Croce and Hein, "Mind the box", 2021, Prop. 2.1;
    without the box Duchi et al., 2008).

    It is ``sign(u) clamp(|u| - t, 0, room)`` with the smallest t >= 0 that brings its size down to the budget. The size
    is a piecewise linear function of t, with ends of pieces where an entry vanishes or begins to be cut by the box.
    """
    flat, start = offset.flatten(1).double(), centre.flatten(1).double()
    lengths, room = flat.abs(), torch.where(flat > 0, 1 - start, start)
    ends = torch.cat([lengths, (lengths - room).clamp_min(0)], 1)
    ends, order = ends.sort(1, descending=True)
    slopes = torch.where(order < lengths.shape[1], 1.0, -1.0).cumsum(1, dtype=ends.dtype)
    sizes = torch.cat([torch.zeros_like(ends[:, :1]), (slopes[:, :-1] * -ends.diff(dim=1)).cumsum(1)], 1)
    last = ((sizes < budget).sum(1, keepdim=True) - 1).clamp_min(0)  # the end before the piece that meets the budget
    threshold = ends.gather(1, last) - (budget - sizes.gather(1, last)) / slopes.gather(1, last).clamp_min(1)
    fits = lengths.minimum(room).sum(1, keepdim=True) <= budget
    threshold = threshold.clamp_min(0).where(~fits, 0)
    shrunk = flat.sign() * (lengths - threshold).clamp_min(0).minimum(room)
    return shrunk.to(offset.dtype).view_as(offset)


def uniform(target: Target, images: Tensor, draw: int) -> Tensor:
    """(N, C, H, W) uniform numbers in (0, 1), named by image id and ``draw``."""
    return target.uniform(images.shape[1:].numel(), draw).view_as(images)


def normal(target: Target, images: Tensor, draw: int) -> Tensor:
    """(N, C, H, W) standard normal numbers, named by image id and ``draw``."""
    size = images.shape[1:].numel()
    numbers = target.uniform(2 * size, draw)
    radius = (-2 * numbers[:, :size].clamp_min(TINY).log()).sqrt()
    return (radius * (2 * math.pi * numbers[:, size:]).cos()).view_as(images)


def random_direction(target: Target, images: Tensor, norm: Norm, draw: int) -> Tensor:
    """(N, C, H, W) directions of unit size in L2 or L1, uniform on the sphere."""
    if norm == "l2":
        return direction(normal(target, images, draw), norm)
    numbers = 2 * uniform(target, images, draw) - 1
    laplace = -numbers.sign() * (1 - numbers.abs()).clamp_min(TINY).log()
    return laplace / size(laplace, norm)


def random_point(target: Target, images: Tensor, budget: float, norm: Norm, draw: int) -> Tensor:
    """A point of the ball, clamped to [0, 1]: uniform in Linf; in L2 and L1 of uniform direction and radius."""
    if norm == "linf":
        return (images + budget * (2 * uniform(target, images, draw) - 1)).clamp(0, 1)
    offset = random_direction(target, images, norm, draw)
    radius = per_image(target.uniform(2 * images.shape[1:].numel() + 1, draw)[:, -1])
    return (images + budget * radius * offset).clamp(0, 1)
