"""Networks for inference: every BatchNorm folded into the convolution or linear layer before it."""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

N = TypeVar("N", bound=nn.Module)

PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


def folded(network: N) -> N:
    """A copy of a network without BatchNorm, equal to it in eval mode up to float rounding.

    In each module the pairs ``conv1, bn1`` to ``conv3, bn3`` and ``downsample`` are folded, and children that have a
    method ``folded`` are replaced by what it returns. Input gradients stay those of the network; its parameters can no
    longer be trained.

    Args:
        network: in eval mode; every BatchNorm follows its convolution.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        _fold(module)
        for name, child in list(module.named_children()):
            if hasattr(child, "folded"):
                setattr(module, name, child.folded())  # type: ignore[operator]
    return copied


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    for before, after in PAIRS:
        if isinstance(getattr(module, after, None), nn.BatchNorm2d):
            setattr(module, before, fuse_conv_bn_eval(getattr(module, before), getattr(module, after)))
            setattr(module, after, nn.Identity())
    projection = getattr(module, "downsample", None)
    if isinstance(projection, nn.Sequential):
        conv, bn = projection
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        module.downsample = fuse_conv_bn_eval(conv, bn)
