"""Early exits (BranchyNet, Teerapittayanon et al. 2016; Shallow-Deep Networks, Kaya et al. 2019): a classifier behind
each stage of a residual network, at which an image leaves once it is confident enough."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robustbench_aig.contracts.network import Lesson, Stepwise, frozen, log_odds, multiply_adds
from robustbench_aig.contracts.policy import Policy
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Exit
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.folding import folded
from robustbench_aig.models.macs import blank
from robustbench_aig.models.resnet import Normalization, Shortcut, Trunk, resnet
from robustbench_aig.registry import register

WIDTH = 64
"""Channels of an exit's convolution."""


class ExitHead(nn.Module):
    """A classifier behind a stage: 3x3 convolution of stride 2, BatchNorm, ReLU, global average pool, linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTH, 3, 2, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(WIDTH)
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of features (N, C, H, W)."""
        logits: Tensor = self.fc(torch.relu(self.bn1(self.conv1(features))).mean((2, 3)))
        return logits

    def folded(self) -> "ExitHead":
        """The same for inference, with BatchNorm folded into the convolution."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
        return self


class EarlyExitNet(Stepwise):
    """A residual network with an exit behind every stage but the last, whose classifier is the network's own.

    The confidence of an exit is its largest class probability; the gating's threshold says what is enough
    (``deterministic:0.8``). The unit of an exit is the stage behind it with that stage's classifier. All classifiers
    are trained together: the loss is the mean of their cross-entropies.

    Args:
        trunk: the residual network.
        classes: number of classes.
    """

    def __init__(self, trunk: Trunk, classes: int) -> None:
        stages = _stages(trunk)
        super().__init__(tuple(Exit(name) for name in list(stages)[1:]))
        self.trunk = trunk
        widths = [_leaving(stage) for stage in list(stages.values())[:-1]]
        self.exits = nn.ModuleList(ExitHead(width, classes) for width in widths)

    def begin(self, images: Tensor) -> Any:
        return self._behind(0, self.trunk.stem(images))

    def score(self, number: int, state: Any) -> Tensor:
        return log_odds(state[1].float())

    def advance(self, number: int, state: Any, decision: Tensor) -> Any:
        return self._behind(number + 1, state[0])

    def answer(self, state: Any) -> Tensor:
        logits: Tensor = state[1]
        return logits

    def _behind(self, stage: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits behind a stage, of the features that enter it."""
        for block in list(_stages(self.trunk).values())[stage]:
            x = block(x)
        last = stage == len(self.exits)
        return x, self.trunk.head(x) if last else self.exits[stage](x)

    def taught(self, images: Tensor, policy: Policy) -> Lesson:
        """The logits of every classifier, on all images."""
        state = self.begin(images)
        found = [state[1]]
        for number in range(len(self.exits)):
            state = self._behind(number + 1, state[0])
            found.append(state[1])
        return Lesson(torch.stack(found))

    def costs(self, image_shape: tuple[int, ...]) -> Costs:
        """Multiply-adds of images of shape (C, H, W): stem, first stage and first classifier always run."""
        with torch.no_grad(), frozen(self):
            state, floor = multiply_adds(self.begin, blank(self, image_shape))
            units = []
            for number in range(len(self.exits)):
                state, macs = multiply_adds(partial(self._behind, number + 1), state[0])
                units.append(macs)
        return Costs(floor, torch.tensor(units, dtype=torch.float64))

    def fused(self) -> "EarlyExitNet":
        """A copy without BatchNorm that computes the same in eval mode, up to float rounding."""
        return folded(self) if self.trunk.foldable else self


def _stages(trunk: Trunk) -> dict[str, Any]:
    """The stages of a residual network by name."""
    return {name: stage for name, stage in trunk.named_children() if name.startswith("layer")}


def _leaving(stage: nn.Module) -> int:
    """How many channels leave a stage."""
    return [module.out_channels for module in stage.modules() if isinstance(module, nn.Conv2d)][-1]


@register(
    "exit",
    "residual network with an exit behind each stage (Kaya et al. 2019)",
    dynamic=True,
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34, 50, 101),
)
def early_exit(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> EarlyExitNet:
    """A residual network with early exits.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        shortcut: as in :class:`~robustbench_aig.models.resnet.CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels.
    """
    return EarlyExitNet(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm), classes)
