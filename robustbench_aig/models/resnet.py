"""Residual networks, split into what a gate may skip (the residual branch) and what always runs (stem, shortcuts,
head).

ImageNet networks are torchvision's own class with these blocks, so torchvision's weights load as they are. CIFAR
networks follow He et al. (2016), section 4.2, with option-A (parameter-free) or projection shortcuts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from robustbench_aig.errors import UsageError
from robustbench_aig.models.architectures import Architecture
from robustbench_aig.models.folding import folded
from robustbench_aig.registry import register

Shortcut = Literal["projection", "A"]
Normalization = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel."""

IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10_NORM = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


class Normalize(nn.Module):
    """(images - mean) / std per channel; the constants live in the card, not in the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class BasicBlock(torchvision_resnet.BasicBlock):
    """Two 3x3 convolutions: ``relu(shortcut(x) + residual(x))``."""

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)

    def residual(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(out))  # type: ignore[no-any-return]

    def finish(self, total: Tensor) -> Tensor:
        """What follows the sum of shortcut and (possibly skipped) residual branch; in place without gradients."""
        return torch.relu(total) if torch.is_grad_enabled() else total.relu_()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.shortcut(x) + self.residual(x))


class Bottleneck(torchvision_resnet.Bottleneck):
    """1x1, 3x3 (strided, the v1.5 form) and 1x1 convolutions."""

    shortcut = BasicBlock.shortcut
    finish = BasicBlock.finish
    forward = BasicBlock.forward

    def residual(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))  # type: ignore[no-any-return]


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each convolution (He et al., "Identity mappings", 2016); nothing follows the sum."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inplanes)
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.downsample = downsample

    shortcut = BasicBlock.shortcut
    forward = BasicBlock.forward

    def residual(self, x: Tensor) -> Tensor:
        out = self.conv1(torch.relu(self.bn1(x)))
        return self.conv2(torch.relu(self.bn2(out)))  # type: ignore[no-any-return]

    def finish(self, total: Tensor) -> Tensor:
        return total


Block = BasicBlock | Bottleneck | PreActivationBlock


class OptionA(nn.Module):
    """Parameter-free downsampling shortcut: every second pixel, new channels filled with zeros on both sides."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        half = self.extra // 2
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.extra - half))


class Trunk(nn.Module, ABC):
    """A residual network as stem, blocks and head; running all blocks is the plain network."""

    normalize: Normalize
    fc: nn.Linear

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to the features that enter the first block."""

    @abstractmethod
    def head(self, x: Tensor) -> Tensor:
        """Features that leave the last block to logits (N, classes)."""

    @property
    def blocks(self) -> list[Any]:
        """The residual blocks in order of execution."""
        stages = (stage for name, stage in self._modules.items() if name.startswith("layer"))
        return [block for stage in stages for block in stage._modules.values()]  # type: ignore[union-attr]

    @property
    def block_names(self) -> list[str]:
        """``layer1.0``, ``layer1.1``, … in the order of :attr:`blocks`."""
        return [
            f"{name}.{number}"
            for name, stage in self.named_children()
            if name.startswith("layer")
            for number, _ in enumerate(stage.children())
        ]

    @property
    def foldable(self) -> bool:
        """Whether every BatchNorm follows its convolution; in pre-activation blocks it comes before."""
        return not any(isinstance(block, PreActivationBlock) for block in self.blocks)

    def fused(self) -> "Trunk":
        """A copy without BatchNorm that computes the same in eval mode, up to float rounding."""
        return folded(self) if self.foldable else self

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def downsampling(block_name: str) -> bool:
    """Whether the block of that name, as in :attr:`Trunk.block_names`, halves the resolution."""
    return block_name.endswith(".0") and block_name != "layer1.0"


class CifarResNet(Trunk):
    """ResNet for small images: a 3x3 stem, three stages of (depth - 2) / 6 blocks with 16, 32 and 64 channels.

    Args:
        depth: 6 n + 2.
        classes: number of classes.
        channels: image channels.
        shortcut: what downsampling shortcuts do; He et al. use ``A`` on CIFAR-10, the official AIG code ``projection``.
        norm: mean and standard deviation per channel.
        preactivation: BatchNorm and ReLU before the convolutions.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 10,
        channels: int = 3,
        shortcut: Shortcut = "projection",
        norm: Normalization = CIFAR10_NORM,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a CIFAR ResNet has depth 6 n + 2, not {depth}")
        self.block: Callable[..., nn.Module] = PreActivationBlock if preactivation else BasicBlock
        self.normalize = Normalize(*norm)
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64 if preactivation else 16)
        blocks = (depth - 2) // 6
        self.layer1 = self._stage(16, 16, blocks, 1, shortcut)
        self.layer2 = self._stage(16, 32, blocks, 2, shortcut)
        self.layer3 = self._stage(32, 64, blocks, 2, shortcut)
        self.fc = nn.Linear(64, classes)
        self.preactivation = preactivation
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, inplanes: int, planes: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
        downsample: nn.Module | None = None
        if stride != 1:
            downsample = OptionA(planes - inplanes)
            if shortcut == "projection":
                projection = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
                downsample = nn.Sequential(projection, nn.BatchNorm2d(planes))
        first = self.block(inplanes, planes, stride, downsample)
        return nn.Sequential(first, *(self.block(planes, planes) for _ in range(blocks - 1)))

    def stem(self, images: Tensor) -> Tensor:
        x = self.conv1(self.normalize(images))
        return x if self.preactivation else torch.relu(self.bn1(x))

    def head(self, x: Tensor) -> Tensor:
        if self.preactivation:
            x = torch.relu(self.bn1(x))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


class ImageNetResNet(torchvision_resnet.ResNet, Trunk):
    """torchvision's ResNet with normalisation inside; ``depth`` is 18, 34, 50, 101 or 152."""

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    relu: nn.ReLU
    maxpool: nn.MaxPool2d

    LAYERS: ClassVar[dict[int, tuple[type[nn.Module], list[int]]]] = {
        18: (BasicBlock, [2, 2, 2, 2]),
        34: (BasicBlock, [3, 4, 6, 3]),
        50: (Bottleneck, [3, 4, 6, 3]),
        101: (Bottleneck, [3, 4, 23, 3]),
        152: (Bottleneck, [3, 8, 36, 3]),
    }

    def __init__(self, depth: int, classes: int = 1000, norm: Normalization = IMAGENET_NORM) -> None:
        if depth not in self.LAYERS:
            raise ValueError(f"an ImageNet ResNet has depth 18, 34, 50, 101 or 152, not {depth}")
        block, layers = self.LAYERS[depth]
        super().__init__(block, layers, num_classes=classes)
        self.normalize = Normalize(*norm)

    def stem(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(images)))))
        return pooled

    def head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    forward = Trunk.forward


class StochasticDepth(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training a block is dropped for the whole batch with a probability that
    rises linearly to 1 - ``survival`` at the last block; in evaluation it is scaled by its chance of survival.

    Attributes:
        generator: draws which blocks survive; training seeds it.
    """

    def __init__(self, trunk: Trunk, survival: float = 0.5) -> None:
        super().__init__()
        self.trunk = trunk
        total = len(trunk.blocks)
        self.survival = [1 - (number + 1) / total * (1 - survival) for number in range(total)]
        self.generator = torch.Generator()

    def forward(self, images: Tensor) -> Tensor:
        x = self.trunk.stem(images)
        for block, survival in zip(self.trunk.blocks, self.survival, strict=True):
            if not self.training:
                x = block.finish(block.shortcut(x) + survival * block.residual(x))
            elif torch.rand((), generator=self.generator) < survival:
                x = block(x)
            else:
                x = block.finish(block.shortcut(x))
        return self.trunk.head(x)


@register(
    "resnet",
    "residual network (He et al. 2016)",
    cifar=(20, 32, 38, 44, 56, 74, 110),
    imagenet=(18, 34, 50, 101),
)
def resnet(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> Trunk:
    """A plain residual network.

    Args:
        arch: which one.
        classes: number of classes.
        channels: image channels.
        shortcut: as in :class:`CifarResNet`.
        norm: of its images; by default CIFAR-10's or ImageNet's.

    Raises:
        UsageError: the network cannot have that shortcut or that many channels.
    """
    if arch.scale == "cifar":
        return CifarResNet(arch.depth, classes, channels, shortcut, norm or CIFAR10_NORM)
    if channels != 3 or shortcut != "projection":
        raise UsageError(
            f"'{arch.name}' takes images of 3 channels and has projection shortcuts; use a CIFAR network here."
        )
    return ImageNetResNet(arch.depth, classes, norm or IMAGENET_NORM)


@register("preresnet", "residual network with pre-activation (He et al. 2016)", cifar=(20, 32, 38, 44, 56, 74, 110))
def preresnet(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    shortcut: Shortcut = "projection",
    norm: Normalization = CIFAR10_NORM,
) -> Trunk:
    """A residual network whose BatchNorm and ReLU come before each convolution; arguments as in :func:`resnet`."""
    return CifarResNet(arch.depth, classes, channels, shortcut, norm, preactivation=True)


@register(
    "stochastic-depth-resnet",
    "residual network trained with stochastic depth (Huang et al. 2016)",
    cifar=(20, 110),
    imagenet=(50, 101),
)
def stochastic_depth(
    arch: Architecture,
    *,
    classes: int,
    channels: int,
    shortcut: Shortcut = "projection",
    norm: Normalization | None = None,
) -> StochasticDepth:
    """A residual network whose blocks are dropped at random in training; arguments as in :func:`resnet`."""
    return StochasticDepth(resnet(arch, classes=classes, channels=channels, shortcut=shortcut, norm=norm))
