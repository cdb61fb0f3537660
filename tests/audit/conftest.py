"""Networks trained on digits, shared by the tests of the audit."""

import pytest
import torch
from torch import nn

from tests.audit import matrix


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def plain() -> nn.Module:
    return matrix.lenet()


@pytest.fixture(scope="session")
def deep() -> nn.Module:
    return matrix.digits_network("resnet20")


@pytest.fixture(scope="session")
def gated() -> nn.Module:
    return matrix.digits_network("aig20")
