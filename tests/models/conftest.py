"""A gated network that decides differently from image to image, and images for it."""

import pytest
import torch
from torch import Tensor

from robustbench_aig.contracts.noise import logistic
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.resnet import CifarResNet


def spread(model: ConvNetAIG, seed: int = 0) -> ConvNetAIG:
    """Give gates opinions: random second layers and BatchNorm statistics, so that images differ in their graphs."""
    generator = torch.Generator().manual_seed(seed)
    for gate in model.gates:
        assert isinstance(gate, GateUnit)
        gate.fc2.weight.data = torch.randn(gate.fc2.weight.shape, generator=generator)
        gate.fc2.bias.data = torch.randn(2, generator=generator)
        gate.bn.running_mean = torch.randn(16, generator=generator) * 0.1
        gate.bn.running_var = torch.rand(16, generator=generator) * 0.05 + 0.01
    return model.eval()


@pytest.fixture(scope="module")
def model() -> ConvNetAIG:
    torch.manual_seed(0)
    return spread(ConvNetAIG(CifarResNet(20)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand((24, 3, 16, 16), generator=torch.Generator().manual_seed(1))


def noise(model: ConvNetAIG, images: Tensor, draw: int = 0) -> Tensor:
    return logistic(0, "score", torch.arange(len(images)), len(model.layout), [draw])[0]
