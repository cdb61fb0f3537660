"""The architectures by name, as data: importing this imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from robustbench_aig.errors import UsageError, unknown
from robustbench_aig.models.paper import System, best

if TYPE_CHECKING:
    from torch import nn

Family = Literal["resnet", "preresnet", "stochastic-depth-resnet", "aig"]


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: such as ``aig20``.
        family: what kind of network.
        depth: number of weighted layers.
        scale: ``cifar`` (3x3 stem, 16-32-64 channels) or ``imagenet`` (torchvision's).
    """

    name: str
    family: Family
    depth: int
    scale: Literal["cifar", "imagenet"]

    @property
    def paper(self) -> System | None:
        """The paper's row of lowest error for it, where it has one."""
        return best(self.name)

    @property
    def gated(self) -> bool:
        """Whether it has gates."""
        return self.family == "aig"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The image size that parameter and MAC counts are quoted for."""
        return (3, 32, 32) if self.scale == "cifar" else (3, 224, 224)

    @property
    def classes(self) -> int:
        """The number of classes that parameter counts are quoted for."""
        return 10 if self.scale == "cifar" else 1000


def _all() -> list[Architecture]:
    cifar, imagenet = (20, 32, 38, 44, 56, 74, 110), (18, 34, 50, 101)
    table: list[Architecture] = []
    for family, short in (("resnet", "resnet"), ("aig", "aig")):
        table += [Architecture(f"{short}{depth}", family, depth, "cifar") for depth in cifar]  # type: ignore[arg-type]
        table += [Architecture(f"{short}{depth}", family, depth, "imagenet") for depth in imagenet]  # type: ignore[arg-type]
    table += [Architecture(f"preresnet{depth}", "preresnet", depth, "cifar") for depth in cifar]
    for depth, scale in ((20, "cifar"), (110, "cifar"), (50, "imagenet"), (101, "imagenet")):
        name = f"stochastic-depth-resnet{depth}"
        table.append(Architecture(name, "stochastic-depth-resnet", depth, scale))  # type: ignore[arg-type]
    return table


ARCHITECTURES: dict[str, Architecture] = {architecture.name: architecture for architecture in _all()}


def architecture(name: str) -> Architecture:
    """The architecture called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def build(name: str, *, classes: int, channels: int = 3, **options: Any) -> "nn.Module":
    """A freshly initialised network (the caller seeds the global generator around this call).

    Args:
        name: such as ``aig20``.
        classes: number of classes.
        channels: image channels.
        options: ``shortcut`` (``projection`` or ``A``; CIFAR networks), ``norm`` ((mean, …), (std, …)), ``hidden``
            (gates).

    Raises:
        UsageError: unknown architecture, or an option that it does not take.
    """
    from robustbench_aig.models.aig import ConvNetAIG
    from robustbench_aig.models.resnet import CifarResNet, ImageNetResNet, StochasticDepth, Trunk

    arch = architecture(name)
    hidden = options.pop("hidden", None)
    if hidden is not None and not arch.gated:
        raise UsageError(f"'{name}' has no gates, so it takes no 'hidden'.")
    trunk: Trunk
    if arch.scale == "cifar":
        preactivation = arch.family == "preresnet"
        trunk = CifarResNet(arch.depth, classes, channels, preactivation=preactivation, **options)
    else:
        if channels != 3 or options.pop("shortcut", "projection") != "projection":
            raise UsageError(
                f"'{name}' takes images of 3 channels and has projection shortcuts; use a CIFAR network here."
            )
        trunk = ImageNetResNet(arch.depth, classes, **options)
    if arch.family == "stochastic-depth-resnet":
        return StochasticDepth(trunk)
    return ConvNetAIG(trunk, hidden or 16) if arch.gated else trunk
