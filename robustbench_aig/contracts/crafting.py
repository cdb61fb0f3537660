"""Crafting: run an attack on a batch and check what it returns before anyone scores it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.norms import size, tolerance
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UserError

SLACK = 1e-6
"""How far outside its box a returned image may lie: 1/255 in float32 is already 3e-8 above."""


@dataclass(frozen=True)
class Crafted:
    """A batch after an attack.

    Attributes:
        images: (E, N, C, H, W) what will be scored; an invalid image is replaced by the clean one.
        size: (E, N) of the perturbations in the attack's own norm.
        linf: (E, N) their largest difference of a value.
        l2: (E, N) their Euclidean length.
        invalid: (E, N) bool: the returned image was not finite, outside [0, 1], outside its ball, or all black.
    """

    images: Tensor
    size: Tensor
    linf: Tensor
    l2: Tensor
    invalid: Tensor


def craft(attack: Attack, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Crafted:
    """Attack a batch and check every returned image against its budget in the attack's norm.

    Args:
        attack: what to run.
        target: what it attacks.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        budgets: E sizes of the norm ball, ascending, above 0; in L0 a number of pixels.

    Raises:
        UsageError: the attack does not work in its norm.
        UserError: it returned something of another shape.
    """
    attack.check_norm()
    returned = attack(target, images, labels, budgets).detach()
    expected = (len(budgets), *images.shape)
    if tuple(returned.shape) != expected:
        raise UserError(
            f"attack '{attack.name}' returned shape {tuple(returned.shape)} in place of {expected}; fix the attack."
        )
    delta = returned - images
    own, linf, l2 = (size(delta, norm) for norm in (attack.norm, "linf", "l2"))
    limit = torch.tensor(budgets, device=images.device)[:, None] + tolerance(attack.norm, images[0].numel())
    flat = returned.flatten(2)
    black = (flat == 0).all(2) & ~(images.flatten(1) == 0).all(1)
    outside = (flat.amin(2) < -SLACK) | (flat.amax(2) > 1 + SLACK)
    invalid = ~flat.isfinite().all(2) | outside | ~(own <= limit) | black
    if invalid.any():
        returned = torch.where(invalid[:, :, None, None, None], images, returned)
        own, linf, l2 = (sizes.masked_fill(invalid, 0) for sizes in (own, linf, l2))
    return Crafted(returned.clamp(0, 1), own, linf, l2, invalid)
