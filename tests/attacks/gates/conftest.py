"""A small ConvNet-AIG whose gates have opinions, and what an attacker sees of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.policy import Deterministic
from robustbench_aig.contracts.target import Passes, Reference, Target
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.resnet import CifarResNet

N, CLASSES = 6, 3


def opinionated(depth: int = 14, seed: int = 0) -> ConvNetAIG:
    """An untrained network whose gates and classes depend on the image."""
    torch.manual_seed(seed)
    model = ConvNetAIG(CifarResNet(depth, classes=CLASSES)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((64, 3, 8, 8), generator=generator)
    for gate in model.gates:
        assert isinstance(gate, GateUnit)
        gate.fc2.weight.copy_(torch.randn(2, 16, generator=generator))
    # BatchNorm statistics of random images spread the hidden units, so that margins differ between images
    model.train()
    for _ in range(30):
        model.traced(images, Deterministic())
    model.eval()
    _, trace = model.traced(images, Deterministic())
    for number, gate in enumerate(model.gates):
        assert isinstance(gate, GateUnit)
        gate.fc2.bias[1] -= trace.margin[:, number].median()
    return model


@pytest.fixture(scope="session")
def model() -> ConvNetAIG:
    return opinionated()


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand((N, 3, 8, 8), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="session")
def labels(model: ConvNetAIG, images: Tensor) -> Tensor:
    """What the deterministic model says of the images."""
    return model.traced(images, Deterministic())[0].argmax(1)


@pytest.fixture(scope="session")
def reference(model: ConvNetAIG) -> Reference:
    images = torch.rand((12, 3, 8, 8), generator=torch.Generator().manual_seed(9))
    return Reference(images, torch.arange(12) % CLASSES, torch.arange(100, 112), ("cat", "dog", "bird"))


@pytest.fixture
def see(model: ConvNetAIG) -> Callable[..., Target]:
    """``see(gating, count=N, model=…, …)`` makes a target."""

    def make(gating: str, count: int = N, network: torch.nn.Module = model, **options: object) -> Target:
        ids = torch.arange(count)
        return Target(network, Gating.parse(gating), ids, ids, Passes.none(count), 0, **options)  # type: ignore[arg-type]

    return make
