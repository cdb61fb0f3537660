"""Crafting: run an attack on a batch and check what it returns before anyone scores it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UserError

SLACK = 1e-6
"""How far outside its ball or box a returned image may lie: 1/255 in float32 is already 3e-8 above."""


@dataclass(frozen=True)
class Crafted:
    """A batch after an attack.

    Attributes:
        images: (E, N, C, H, W) what will be scored; an invalid image is replaced by the clean one.
        linf: (E, N) size of the perturbation.
        l2: (E, N) likewise.
        invalid: (E, N) bool: the returned image was not finite, outside [0, 1], outside its ball, or all black.
    """

    images: Tensor
    linf: Tensor
    l2: Tensor
    invalid: Tensor


def craft(attack: Attack, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Crafted:
    """Attack a batch and check every returned image.

    Raises:
        UserError: the attack returned something of another shape.
    """
    returned = attack(target, images, labels, budgets).detach()
    expected = (len(budgets), *images.shape)
    if tuple(returned.shape) != expected:
        raise UserError(
            f"attack '{attack.name}' returned shape {tuple(returned.shape)} in place of {expected}; fix the attack."
        )
    delta = (returned - images).flatten(2)
    linf, l2 = delta.abs().amax(2), delta.norm(dim=2)
    size = linf if attack.norm == "linf" else l2
    limit = torch.tensor(budgets, device=images.device)[:, None] + SLACK * (1.0 if attack.norm == "linf" else 10.0)
    flat = returned.flatten(2)
    black = (flat == 0).all(2) & ~(images.flatten(1) == 0).all(1)
    outside = (flat.amin(2) < -SLACK) | (flat.amax(2) > 1 + SLACK)
    invalid = ~flat.isfinite().all(2) | outside | ~(size <= limit) | black
    if invalid.any():
        returned = torch.where(invalid[:, :, None, None, None], images, returned)
        linf, l2 = linf.masked_fill(invalid, 0), l2.masked_fill(invalid, 0)
    return Crafted(returned.clamp(0, 1), linf, l2, invalid)
