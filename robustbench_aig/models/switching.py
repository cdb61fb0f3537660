"""Residual blocks whose branch runs for some images and not for others."""

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import added
from robustbench_aig.contracts.network import take as rows_of


def channels(block: nn.Module) -> int:
    """How many channels enter a residual block."""
    return next(module.in_channels for module in block.modules() if isinstance(module, nn.Conv2d))


def switched(block: Any, x: Tensor, decision: Tensor) -> Tensor:
    """What leaves a residual block whose branch runs where a decision says so.

    Args:
        block: with ``shortcut``, ``residual`` and ``finish``.
        x: (N, C, H, W). Without gradients it may be overwritten, so that closed images are not even copied.
        decision: (N,); bool runs the branch for the open images alone (Eq. 4), anything else scales it (Eq. 3).
    """
    if decision.dtype != torch.bool or block.training:
        residual = block.residual(x)
        finished: Tensor = block.finish(_GatedSum.apply(block.shortcut(x), residual, decision.to(residual.dtype)))
        return finished
    rows = decision.nonzero()[:, 0]
    if rows.shape[0] == x.shape[0]:
        whole: Tensor = block(x)
        return whole
    total: Tensor = block.shortcut(x)
    if rows.shape[0]:
        total = added(total, rows, block.residual(rows_of(x, rows)))
    elif total is x:
        return x  # what leaves a block is finished already
    finished = block.finish(total)
    return finished


class _GatedSum(torch.autograd.Function):
    """shortcut + decision * residual in one pass over memory; autograd's own way is a third slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, shortcut: Tensor, residual: Tensor, decision: Tensor) -> Tensor:
        ctx.save_for_backward(residual, decision)
        return torch.addcmul(shortcut, residual, decision.view(-1, 1, 1, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        residual, decision = ctx.saved_tensors
        pull = None
        if ctx.needs_input_grad[2]:
            order = (0, 2, 3, 1)  # as channels-last images lie in memory
            rows, columns = (t.permute(order).flatten(1) for t in (gradient, residual))
            pull = torch.bmm(rows[:, None], columns[:, :, None]).view(-1)
        return gradient, gradient * decision.view(-1, 1, 1, 1), pull
