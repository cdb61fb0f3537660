"""Two networks trained on digits, shared by the tests of the audit."""

import pytest
import torch
from torch import nn

from tests.audit.audits import trained


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    torch.set_num_threads(1)
    return trained("resnet20", tmp_path_factory.mktemp("resnet20"))


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    torch.set_num_threads(1)
    return trained("aig20", tmp_path_factory.mktemp("aig20"))
