"""SkipNet (Wang et al., ECCV 2018): a residual network whose blocks are skipped per image by small gating networks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustbench_aig.contracts.network import Stepwise, frozen, multiply_adds
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Switch
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.folding import folded
from robustbench_aig.models.macs import trunk_macs
from robustbench_aig.models.resnet import Normalization, Shortcut, Trunk, resnet
from robustbench_aig.models.switching import channels as entering
from robustbench_aig.models.switching import switched
from robustbench_aig.registry import register

Gate = Literal["feed-forward", "recurrent"]
"""Which gating network: one convolution per block, or one LSTM that all blocks share."""

HIDDEN = 10
"""Inputs and hidden units of the recurrent gate (their section 3.2)."""

OPEN = 2.0
"""Bias that a fresh gate starts with, so that it opens for 88 % of the images and training begins with most blocks."""


class FeedForwardGate(nn.Module):
    """Their FFGate-II: a 3x3 convolution of stride 2 with BatchNorm and ReLU, global average pool, one score."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 2, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, 1)
        _start(self.fc)

    def forward(self, features: Tensor) -> Tensor:
        """Margins (N,), in float32, of block inputs (N, C, H, W)."""
        pooled = torch.relu(self.bn1(self.conv1(features))).mean((2, 3))
        margin: Tensor = self.fc(pooled)[:, 0].float()
        return margin

    def folded(self) -> "FeedForwardGate":
        """The same for inference, with BatchNorm folded into the convolution."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
        return self


class RecurrentGate(nn.Module):
    """Their RNNGate: pooled features, projected to ten numbers per width, enter one LSTM that all blocks share; a
    linear layer scores its hidden state."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.project = nn.ModuleDict({str(width): nn.Linear(width, HIDDEN) for width in sorted(set(widths))})
        self.cell = nn.LSTMCell(HIDDEN, HIDDEN)
        self.fc = nn.Linear(HIDDEN, 1)
        _start(self.fc)

    def read(self, x: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Hidden and cell state (N, 10) after reading features (N, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            pooled = torch.relu(self.project[str(x.shape[1])](x.float().mean((2, 3))))
            hidden, cell = self.cell(pooled, memory)
        return hidden, cell


def _start(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.constant_(layer.bias, OPEN)


class SkipNet(Stepwise):
    """``x_(l+1) = G_l(x_l) F_l(x_l) + (1 - G_l(x_l)) x_l`` (their Eq. 1) over the blocks of a residual network.

    Trained here by straight-through Gumbel samples and a target rate, as ConvNet-AIG is, in place of the paper's
    supervised warm-up and policy gradient.

    Args:
        trunk: the residual network to gate; each of its blocks gets a gate.
        gate: which gating network.
    """

    def __init__(self, trunk: Trunk, gate: Gate = "feed-forward") -> None:
        super().__init__(tuple(Switch(name) for name in trunk.block_names))
        self.trunk = trunk
        widths = [entering(block) for block in trunk.blocks]
        self.gates = nn.ModuleList(FeedForwardGate(width) for width in widths if gate == "feed-forward")
        self.memory = RecurrentGate(widths) if gate == "recurrent" else None

    def begin(self, images: Tensor) -> Any:
        x = self.trunk.stem(images)
        if self.memory is None:
            return x
        nothing = x.new_zeros(len(x), HIDDEN, dtype=torch.float32)
        return (x, *self.memory.read(x, (nothing, nothing)))

    def score(self, number: int, state: Any) -> Tensor:
        margin: Tensor = self.gates[number](state) if self.memory is None else self.memory.fc(state[1])[:, 0]
        return margin.float()

    def advance(self, number: int, state: Any, decision: Tensor) -> Any:
        block = self.trunk.blocks[number]
        if self.memory is None:
            return switched(block, state, decision)
        x = switched(block, state[0], decision)
        last = number + 1 == len(self.layout)
        return (x, *(state[1:] if last else self.memory.read(x, state[1:])))

    def answer(self, state: Any) -> Tensor:
        return self.trunk.head(state if self.memory is None else state[0])

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """Multiply-adds of images of shape (C, H, W): stem, shortcuts, head and gates always run."""
        floor, blocks, shapes = trunk_macs(self.trunk, image_shape)
        parameter = next(self.parameters())
        with torch.no_grad(), frozen(self):
            for number, shape in enumerate(shapes):
                x = torch.zeros((1, *shape), device=parameter.device, dtype=parameter.dtype)
                if self.memory is None:
                    floor += multiply_adds(self.gates[number], x)[1]
                else:  # an LSTM cell has four gates, each of which reads input and hidden state
                    floor += shape[0] * HIDDEN + 4 * HIDDEN * 2 * HIDDEN + HIDDEN
        return Costs(floor, torch.tensor(blocks, dtype=torch.float64))

    def fused(self) -> "SkipNet":
        """A copy without BatchNorm that computes the same in eval mode, up to float rounding."""
        return folded(self) if self.trunk.foldable else self


@register(
    "skipnet",
    "residual network with skipped blocks (Wang et al. 2018)",
    dynamic=True,
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34, 50, 101),
)
def skipnet(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    gate: Gate = "feed-forward",
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> SkipNet:
    """A SkipNet.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        gate: ``feed-forward`` or ``recurrent``.
        shortcut: as in :class:`~robustbench_aig.models.resnet.CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels.
    """
    return SkipNet(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm), gate)
