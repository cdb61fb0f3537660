"""Multiply-adds (MACs) of residual networks, split into what decisions can skip and what always runs.

One multiply-add counts once. (The paper's Table 1 counts two operations per multiply-add, its Table 2 one.)
"""

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import frozen, multiply_adds
from robustbench_aig.models.resnet import Trunk


def blank(network: nn.Module, image_shape: tuple[int, ...]) -> Tensor:
    """One black image (1, C, H, W) of the network's own device and type."""
    parameter = next(network.parameters())
    return torch.zeros((1, *image_shape), device=parameter.device, dtype=parameter.dtype)


def full_macs(network: nn.Module, image_shape: tuple[int, ...]) -> float:
    """Multiply-adds of one image of shape (C, H, W) through a plain network."""
    with frozen(network):
        return multiply_adds(network, blank(network, image_shape))[1]


def trunk_macs(trunk: Trunk, image_shape: tuple[int, ...]) -> tuple[float, list[float], list[tuple[int, ...]]]:
    """What an image of shape (C, H, W) costs in stem, shortcuts and head together; in the residual branch of each
    block; and the shape (C, H, W) of the features that enter each block."""
    with torch.no_grad(), frozen(trunk):
        x, floor = multiply_adds(trunk.stem, blank(trunk, image_shape))
        blocks, shapes = [], []
        for block in trunk.blocks:
            shapes.append(tuple(x.shape[1:]))
            total, always = multiply_adds(block.shortcut, x)
            residual, skippable = multiply_adds(block.residual, x)
            floor += always
            blocks.append(skippable)
            x = block.finish(total + residual)
        return floor + multiply_adds(trunk.head, x)[1], blocks, shapes
