"""Networks for inference: every BatchNorm folded into the convolution or linear layer before it."""

import copy
from itertools import takewhile

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gate_unit import FoldedGate, GateUnit
from robustbench_aig.models.resnet import BasicBlock, Bottleneck, Trunk

PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


def fuse(network: nn.Module) -> nn.Module:
    """A copy of a network of this suite without BatchNorm, equal to it in eval mode up to float rounding.

    Input gradients stay those of the network; its parameters can no longer be trained. Networks that are not of this
    suite, and pre-activation blocks (BatchNorm before the convolution), are returned as they are.

    Args:
        network: in eval mode.
    """
    trunk = network.trunk if isinstance(network, ConvNetAIG) else network
    if not isinstance(trunk, Trunk) or not all(isinstance(block, BasicBlock | Bottleneck) for block in trunk.blocks):
        return network
    fused = copy.deepcopy(network).eval()
    for module in list(fused.modules()):
        if isinstance(module, BasicBlock | Bottleneck | Trunk):
            _fold(module)
    if isinstance(fused, ConvNetAIG):
        units = [gate for gate in fused.gates if isinstance(gate, GateUnit)]
        if len(units) == len(fused.gates):
            fused.gates = nn.ModuleList(FoldedGate(_same_width(units[number:])) for number in range(len(units)))
    return fused


def _same_width(gates: list[GateUnit]) -> list[GateUnit]:
    """The first gate and those after it, up to one that reads more channels."""
    return list(takewhile(lambda gate: gate.fc1.in_features == gates[0].fc1.in_features, gates))


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
