"""Multiply-adds (MACs) of residual networks, split into what gates can skip and what always runs.

One multiply-add counts once. (The paper's Table 1 counts two operations per multiply-add, its Table 2 one.)
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from robustbench_aig.contracts.trace import Costs
from robustbench_aig.models.resnet import Trunk

_KNOWN: WeakKeyDictionary[Trunk, dict[tuple[int, ...], Costs]] = WeakKeyDictionary()


def costs(trunk: Trunk, image_shape: tuple[int, ...], hidden: int = 16) -> Costs:
    """MACs of a residual network for images of shape (C, H, W), counted by running one image; remembered per network.

    Args:
        trunk: the network.
        image_shape: (C, H, W).
        hidden: d of the gating units that would sit on its blocks.
    """
    known = _KNOWN.setdefault(trunk, {})
    if image_shape not in known:
        known[image_shape] = _count(trunk, image_shape, hidden)
    return known[image_shape]


def _count(trunk: Trunk, image_shape: tuple[int, ...], hidden: int) -> Costs:
    parameter = next(trunk.parameters())
    image = torch.zeros((1, *image_shape), device=parameter.device, dtype=parameter.dtype)
    floor = gates = 0.0
    blocks = []
    modes = {module: module.training for module in trunk.modules()}
    trunk.eval()
    try:
        with torch.no_grad():
            x, n = _run(trunk.stem, image)
            floor += n
            for block in trunk.blocks:
                gates += x.shape[1] * hidden + hidden * 2
                total, always = _run(block.shortcut, x)
                residual, skippable = _run(block.residual, x)
                floor += always
                blocks.append(skippable)
                x = block.finish(total + residual)
            floor += _run(trunk.head, x)[1]
    finally:
        for module, training in modes.items():
            module.training = training
    return Costs(floor, gates, torch.tensor(blocks, dtype=torch.float64))


def _run(part: object, x: Tensor) -> tuple[Tensor, float]:
    counter = FlopCounterMode(display=False)
    with counter:
        out: Tensor = part(x)  # type: ignore[operator]
    return out, counter.get_total_flops() / 2
