"""Fuzzing runs in a folder of its own, and says at the end how many cases it has seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import Card
from tests.fuzz.fuzzing import CASES


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that every case of a test runs in."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of this suite: an untrained AIG-20 for digits whose gates differ between images."""
    options = {"norm": [[0.3], [0.4]]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("aig20", classes=10, channels=1, **options).eval()
        for key, value in model.state_dict().items():
            if key.endswith("fc2.weight"):
                torch.nn.init.normal_(value, std=3.0)
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    checkpoints.save(folder, model, Card("aig20", list("0123456789"), (1, 8, 8), options, "digits"))
    return folder


@pytest.fixture(autouse=True)
def counted(record_property: pytest.FixtureRequest) -> Iterator[None]:
    """Record how many cases a test has seen; none would mean that it holds nothing."""
    before = CASES.total()
    yield
    seen = CASES.total() - before
    record_property("cases", seen)  # type: ignore[operator]
    assert seen > 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CASES:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(CASES.items()))
        terminalreporter.write_line(f"fuzzed: {CASES.total()} cases ({listed})")
