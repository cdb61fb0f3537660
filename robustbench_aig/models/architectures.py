"""The architectures by name, as data: importing this imports no torch.

A family of networks is one file of this package: a function registered with the depths that it comes in, which builds
one of them from its :class:`Architecture`. Its names are the family's and the depth: ``resnet20``.
"""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from robustbench_aig.errors import unknown
from robustbench_aig.models.paper import System, best
from robustbench_aig.registry import Registry, no_parameter

if TYPE_CHECKING:
    from torch import nn

registry: "Registry[nn.Module]" = Registry(
    "architecture",
    "robustbench_aig.models",
    dynamic=False,  # whether its networks decide per image what to run
    cifar=(),  # depths for small images
    imagenet=(),  # depths for images of 224 pixels
)


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: such as ``aig20``.
        family: what kind of network.
        depth: number of weighted layers.
        scale: ``cifar`` (3x3 stem, 16-32-64 channels) or ``imagenet`` (torchvision's).
        dynamic: whether it decides per image what to run.
    """

    name: str
    family: str
    depth: int
    scale: Literal["cifar", "imagenet"]
    dynamic: bool

    @property
    def paper(self) -> System | None:
        """The paper's row of lowest error for it, where it has one."""
        return best(self.name)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The image size that parameter and MAC counts are quoted for."""
        return (3, 32, 32) if self.scale == "cifar" else (3, 224, 224)

    @property
    def classes(self) -> int:
        """The number of classes that parameter counts are quoted for."""
        return 10 if self.scale == "cifar" else 1000


SCALES: tuple[Literal["cifar", "imagenet"], ...] = ("cifar", "imagenet")

ARCHITECTURES: dict[str, Architecture] = {
    f"{family.name}{depth}": Architecture(
        f"{family.name}{depth}", family.name, depth, scale, bool(family.facts["dynamic"])
    )
    for family in registry.entries()
    for scale in SCALES
    for depth in family.facts[scale]
}


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
        options: what the family's function takes, such as ``norm`` ((mean, …), (std, …)), ``shortcut`` (``projection``
            or ``A``; CIFAR networks) or ``hidden`` (gates).

    Raises:
        UsageError: unknown architecture, or an option that it does not take.
    """
    arch = architecture(name)
    make = registry.entry(arch.family).load()
    valid = [option for option in inspect.signature(make).parameters if option not in ("arch", "classes", "channels")]
    for option in options:
        if option not in valid:
            raise no_parameter("architecture", name, option, valid)
    network: nn.Module = make(arch, classes=classes, channels=channels, **options)
    return network
