"""Whether a network is a fixed function of each image on its own, and returns what attacks expect."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustbench_aig.models.checkpoints import weights_hash

if TYPE_CHECKING:
    from robustbench_aig.audit.context import Context
    from robustbench_aig.engine.plan import Cell

ALONE = 4
"""Images that are also passed one by one."""


def unsteady(context: "Context", cell: "Cell") -> str | None:
    """What makes the model something else from pass to pass or batch to batch, and what to do; None if nothing does.

    Randomness inside the model is told apart by :meth:`Context.random_inside`.
    """
    network, tried = cell.model.network, context.tried
    before = weights_hash(network)
    logits = context.view(cell, tried.images, tried.ids)[0].nan_to_num()
    if any(module.training for module in network.modules()):
        return (
            "the model leaves eval mode in its forward pass, so BatchNorm mixes images; evaluate it in eval mode only."
        )
    if weights_hash(network) != before:
        return (
            "a forward pass changes weights or buffers of the model, so results depend on what ran before; freeze them."
        )
    if before != context.weights[cell.model.name]:
        return (
            "weights or buffers are not those that the sweep started with; find what trains the model during an attack."
        )
    one_by_one = [tried.part(slice(number, number + 1)) for number in range(min(ALONE, len(tried.ids)))]
    alone = torch.cat([context.view(cell, part.images, part.ids)[0] for part in one_by_one])
    apart = float((alone.nan_to_num() - logits[:ALONE]).abs().max())
    if apart > 1e-3 * max(1.0, float(logits.abs().max())) and not context.random_inside(cell):
        return "an image's logits depend on the other images of its batch; remove what normalises over the batch."
    return None


def misread(logits: Tensor) -> str | None:
    """What is wrong with logits (N, classes), and what to do; None if nothing is."""
    if logits.ndim != 2 or logits.dtype != torch.float32:
        kind = str(logits.dtype).removeprefix("torch.")
        return f"the model returns {kind} of shape {tuple(logits.shape)}; return float32 logits (N, classes)."
    if _probabilities(logits):
        return (
            "the model returns probabilities, which flatten the loss of every attack; return logits, without softmax."
        )
    return None


def _probabilities(logits: Tensor, slack: float = 1e-5) -> bool:
    """AutoAttack's rule: every row lies in [0, 1] and sums to 1."""
    inside = logits.min() > -slack and logits.max() < 1 + slack
    return bool(inside and ((logits.sum(1) - 1).abs() < slack).all())
