"""Fixtures of the command line: every test runs it in this process, in a folder of its own."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cli import cli
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import Card
from tests.cli.helpers import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    return lambda *arguments, **more: CliRunner().invoke(cli, list(map(str, arguments)), **more)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained AIG-20 for digits whose gates differ between images."""
    options = {"norm": [[0.3], [0.4]]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("aig20", classes=10, channels=1, **options).eval()
        for key, value in model.state_dict().items():
            if key.endswith("fc2.weight"):
                torch.nn.init.normal_(value, std=3.0)
    folder = tmp_path_factory.mktemp("checkpoints") / "aig20"
    checkpoints.save(folder, model, Card("aig20", list("0123456789"), (1, 8, 8), options, "digits"))
    return folder
