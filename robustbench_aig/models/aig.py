"""ConvNet-AIG (Veit and Belongie, 2018): a residual network whose blocks are switched per image by gates."""

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.contracts.network import Stepwise
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Switch
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.folding import folded
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.macs import trunk_macs
from robustbench_aig.models.resnet import Normalization, Shortcut, Trunk, resnet
from robustbench_aig.models.switching import channels as entering
from robustbench_aig.models.switching import switched
from robustbench_aig.registry import register


class ConvNetAIG(Stepwise):
    """``x_l = x_(l-1) + g_l(x_(l-1)) f_l(x_(l-1))`` (Eq. 3) over the blocks of a residual network.

    Where decisions are hard and carry no gradient, a block runs only for the images whose gate is open (Eq. 4).

    Args:
        trunk: the residual network to gate; each of its blocks gets one gate.
        hidden: d of Eq. 6.
    """

    def __init__(self, trunk: Trunk, hidden: int = 16) -> None:
        super().__init__(tuple(Switch(name) for name in trunk.block_names))
        self.trunk = trunk
        self.gates = nn.ModuleList(GateUnit(entering(block), hidden) for block in trunk.blocks)

    def begin(self, images: Tensor) -> Tensor:
        return self.trunk.stem(images)

    def score(self, number: int, state: Any) -> Tensor:
        margin: Tensor = self.gates[number](state)
        return margin

    def advance(self, number: int, state: Any, decision: Tensor) -> Tensor:
        return switched(self.trunk.blocks[number], state, decision)

    def answer(self, state: Any) -> Tensor:
        return self.trunk.head(state)

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """Multiply-adds of images of shape (C, H, W): stem, shortcuts, head and gates always run."""
        floor, blocks, _ = trunk_macs(self.trunk, image_shape)
        gates = sum(float(gate.macs) for gate in self.gates)  # type: ignore[arg-type, misc]
        return Costs(floor + gates, torch.tensor(blocks, dtype=torch.float64))

    def fused(self) -> "ConvNetAIG":
        """A copy without BatchNorm that computes the same in eval mode, up to float rounding."""
        return folded(self) if self.trunk.foldable else self


@register(
    "aig",
    "ConvNet-AIG: each residual block has a gate (Veit and Belongie 2018)",
    dynamic=True,
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34, 50, 101),
)
def aig(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    hidden: int = 16,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> ConvNetAIG:
    """A gated residual network.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        hidden: d of Eq. 6.
        shortcut: as in :class:`~robustbench_aig.models.resnet.CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels.
    """
    return ConvNetAIG(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm), hidden)
