"""The few lines of attack that checks need for themselves, independent of the attacks under audit.

No size here depends on the budgets of a sweep: steps are sizes of their own, or the sizes that a caller gives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from robustbench_aig.contracts.target import Target, mean_margin

STEPS = tuple(size / 255 for size in (4, 1, 1 / 4, 1 / 16, 1 / 64))
"""Lengths, in pixel values, over which differences are taken. The short ones meet few kinks of a network, the long ones
rise above the rounding of its logits."""

ROUNDING, COARSE = 16, 2**-10
"""What rounding makes of logits, as a share of the largest: so many units of its last place, and on a GPU, whose
convolutions keep ten bits (TF32), ``COARSE``."""

CLEAR = 10.0
"""How many times more than by rounding the margin must change for a difference to say something."""

RADII = tuple(2 ** (number / 2) / 1020 for number in range(17))
"""Linf balls from a quarter to 64 pixel levels, each 1.4 times the one before."""


def ascend(target: Target, images: Tensor, labels: Tensor, size: float, steps: int, norm: str = "linf") -> Tensor:
    """The images of largest margin on gradient steps inside a ball around the clean images, which they start from.

    Gradient and choice see the target's own draws, so a target of fixed noise is attacked under that noise.

    Args:
        target: what is attacked.
        images: (N, C, H, W).
        labels: (N,).
        size: of the ball.
        steps: how many; each goes 2.5 times the share of the ball that all of them have.
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.
    """
    points = best = images
    highest = torch.full((len(images),), -torch.inf, device=images.device)
    for step in range(steps + 1):
        values, gradient, _ = target.gradient(points, lambda view: mean_margin(view, labels), step)
        better = values > highest
        best = torch.where(better[:, None, None, None], points, best)
        highest = torch.where(better, values, highest)
        points = _moved(points, images, gradient, size, 2.5 * size / steps, norm)
    return best


def _moved(points: Tensor, clean: Tensor, gradient: Tensor, size: float, step: float, norm: str) -> Tensor:
    """Points after a step along the gradient, back in the ball of the norm around the clean images, and in [0, 1]."""
    if norm == "l0":
        return _switched(clean, gradient, int(size))
    if norm == "linf":
        offset = (points + step * gradient.sign() - clean).clamp(-size, size)
    elif norm == "l2":
        offset = points + step * _unit(gradient, 2) - clean
        offset = offset * (size / _length(offset, 2)).clamp_max(1.0)
    else:
        steep = gradient.abs() >= gradient.abs().flatten(1).quantile(0.95, 1).view(-1, 1, 1, 1)
        offset = _in_diamond(points + step * _unit(steep * gradient.sign(), 1) - clean, size)
    return (clean + offset).clamp(0, 1)


def _switched(clean: Tensor, gradient: Tensor, count: int) -> Tensor:
    """The clean images with the ``count`` values at 0 or 1 that promise most by the gradient."""
    goal = (gradient > 0).to(clean)
    gain = ((goal - clean) * gradient).flatten(1)
    chosen = gain.topk(max(1, min(count, gain.shape[1])), 1).indices
    return clean.flatten(1).scatter(1, chosen, goal.flatten(1).gather(1, chosen)).view_as(clean)


def _in_diamond(offset: Tensor, size: float) -> Tensor:
    """Offsets projected onto the L1 ball (Duchi et al. 2008)."""
    flat = offset.flatten(1)
    ordered = flat.abs().sort(1, descending=True).values
    ranks = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    surplus = (ordered.cumsum(1) - size) / ranks
    last = (ordered > surplus).sum(1, keepdim=True).clamp_min(1) - 1
    threshold = surplus.gather(1, last).clamp_min(0)
    return (flat.sign() * (flat.abs() - threshold).clamp_min(0)).view_as(offset)


def _length(vectors: Tensor, order: int) -> Tensor:
    """(N, 1, 1, 1) length, above 0."""
    lengths: Tensor = torch.linalg.vector_norm(vectors.flatten(1), order, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return lengths


def _unit(vectors: Tensor, order: int) -> Tensor:
    return vectors / _length(vectors, order)


def reach(target: Target, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) the smallest of :data:`RADII` at which signed steps, ball by ball, make an image wrong; 0 for those that are
    wrong from the start, infinite where none does. Arguments as in :func:`ascend`."""
    found = torch.full((len(images),), torch.inf, device=images.device)
    points, before = images, 0.0
    for step, radius in enumerate((*RADII, RADII[-1])):
        values, gradient, _ = target.gradient(points, lambda view: mean_margin(view, labels), step)
        found = torch.where((values > 0) & found.isinf(), before, found)
        offset = (points + 1.5 * (radius - before) * gradient.sign() - images).clamp(-radius, radius)
        points, before = (images + offset).clamp(0, 1), radius
    return found


def random_steps(target: Target, images: Tensor, size: float, norm: str, draw: int) -> Tensor:
    """Images moved by ``size`` in a random direction.

    A corner of the Linf ball, a point of the L2 or the L1 sphere, or (L0) so many values at 0 or 1.
    """
    numbers = target.uniform(images[0].numel(), draw).view_as(images)
    if norm == "linf":
        offset = size * (numbers - 0.5).sign()
    elif norm == "l2":
        offset = size * _unit(torch.special.ndtri(numbers.clamp(1e-6, 1 - 1e-6)), 2)
    elif norm == "l1":
        side = numbers - 0.5
        offset = size * _unit(-side.sign() * torch.log1p(-2 * side.abs().clamp_max(0.499999)), 1)
    else:
        return _switched(images, numbers - 0.5, int(size))
    return (images + offset).clamp(0, 1)


DIRECTIONS = ("all", "half", "block", "block") * 2
"""What is moved at random in each comparison with differences: all values, those of a random half of the pixels, or
those of a random block with a quarter of the image's height and width. Errors on a part of an image show in a part."""


def beside(target: Target, images: Tensor) -> Tensor:
    """Images moved at random by up to the longest of :data:`STEPS`, inside [0, 1]: no value is at the end of the range,
    and no two are alike, so that no kink of a network is where the image is."""
    far = STEPS[0] * target.uniform(images[0].numel(), 2 * len(DIRECTIONS)).view_as(images)
    return torch.where(images > 0.5, images - far, images + far)


def disagreement(target: Target, images: Tensor, labels: Tensor, steps: Sequence[float] = STEPS) -> Tensor:
    """(N, D) how far differences of the margin are from what its gradient predicts, in D random directions.

    Each direction moves its values by the same step, up or down at random, but into [0, 1]. Predicted and measured
    slopes p and q have the squared error ``(q - p)^2 / max(q^2 + p^2, |g|^2)``, where g is the gradient of the moved
    values: 0 where it is right, about 1 where it is zero or has the wrong sign. The smallest over the steps counts,
    because a single step may cross a kink. NaN where no step changes the margin beyond rounding.

    Args:
        target: of one draw.
        images: (N, C, H, W).
        labels: (N,).
        steps: tried lengths.
    """
    at, gradient, view = target.gradient(images, lambda view: mean_margin(view, labels))
    share = ROUNDING * torch.finfo(view.logits.dtype).eps if images.device.type == "cpu" else COARSE
    rounding = share * view.logits[0].abs().amax(1)
    errors = []
    for number, kind in enumerate(DIRECTIONS):
        moved = _moved_values(target, images, kind, number)
        up = (target.uniform(images[0].numel(), number).view_as(images) < 0.5) | (images < steps[0])
        direction = torch.where(up & (images <= 1 - steps[0]), 1.0, -1.0) * moved
        predicted = (gradient * direction).flatten(1).sum(1)
        steepness = (gradient * moved).flatten(1).norm(dim=1)
        smallest = torch.full_like(predicted, torch.nan)
        for step in steps:
            change = mean_margin(target.view(images + step * direction, target.gradient_stage, [0]), labels) - at
            measured = change / step
            scale = (measured.square() + predicted.square()).maximum(steepness.square())
            clear = step * scale.sqrt() > CLEAR * rounding
            error = (measured - predicted).square() / scale
            smallest = smallest.fmin(error.where(clear & change.isfinite(), torch.nan))
        errors.append(smallest)
    return torch.stack(errors, 1)


def _moved_values(target: Target, images: Tensor, kind: str, number: int) -> Tensor:
    """(N, 1, H, W) float, 1 at the pixels that a direction moves."""
    count, _, height, width = images.shape
    if kind == "all":
        return torch.ones_like(images[:, :1])
    numbers = target.uniform(height * width, len(DIRECTIONS) + number)
    if kind == "half":
        return (numbers < 0.5).view(count, 1, height, width).to(images)
    inside = []
    for axis, size in enumerate((height, width)):
        side = max(1, size // 4)
        first = (numbers[:, axis, None] * (size - side + 1)).floor()
        place = torch.arange(size, device=images.device)
        inside.append((place >= first) & (place < first + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None].to(images)
