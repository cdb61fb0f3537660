"""``check``: one line for each requirement, a remedy for each failure, and an exit code that says which."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import cli
from robustbench_aig.conformance import REQUIREMENTS

Run = Callable[..., Result]

NETWORKS = """
import torch
from torch import nn

from robustbench_aig import DynamicNetwork, Switch, skip


class Gated(DynamicNetwork):
    def __init__(self, skipping=True):
        super().__init__([Switch("block")])
        self.stem, self.block = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.gate, self.head = nn.Linear(4, 1), nn.Linear(4, 2)
        self.skipping = skipping

    def run(self, images, ask):
        x = self.stem(images)
        decision = ask.switch(self.gate(x.mean((2, 3))))
        if self.skipping:
            x = x + skip(self.block, x, decision)
        else:
            x = x + self.block(x) * decision.float()[:, None, None, None]
        return self.head(x.mean((2, 3)))


class List(nn.Module):
    def forward(self, images):
        return [images.mean((2, 3)), images.amax((2, 3))]


def gated(): return Gated()
def wasteful(): return Gated(skipping=False)
def wrapped(): return nn.Sequential(nn.Identity(), Gated())
def list_of_logits(): return List()
"""

PLAIN = sum(requirement.part == "plain" for requirement in REQUIREMENTS)


@pytest.fixture(autouse=True)
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.py").write_text(NETWORKS)


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(cli, ["check", "--device", "cpu", *arguments])


def of(function: str) -> list[str]:
    return ["-m", f"networks.py:{function}", "--image-shape", "3x8x8"]


def test_a_sound_network_passes_line_by_line(run: Run) -> None:
    result = run(*of("gated"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(REQUIREMENTS)
    assert {line[:4] for line in lines} == {"PASS", "n.a."}
    for line, requirement in zip(lines, REQUIREMENTS, strict=True):
        assert line[6:].startswith(requirement.title)
    assert result.stderr == f"networks:gated: 0 of {len(REQUIREMENTS)} tests failed.\n"


def test_a_failure_says_what_was_measured_and_what_to_do(run: Run) -> None:
    result = run(*of("wasteful"))
    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if not line.startswith(("PASS", "n.a.")))
    assert line == (
        "FAIL  costs of skipped units  'block' takes as many multiply-adds whether it runs or not (16,140 in all); "
        "run the unit by robustbench_aig.skip(unit, x, decision), or state in 'costs' what it costs."
    )


def test_machines_get_the_same_as_json(run: Run) -> None:
    found = json.loads(run(*of("wasteful"), "--json").stdout)
    assert [entry["test"] for entry in found] == [requirement.title for requirement in REQUIREMENTS]
    assert {entry["part"] for entry in found} == {"plain", "dynamic"}
    assert [entry["test"] for entry in found if entry["verdict"] == "FAIL"] == ["costs of skipped units"]
    assert all(bool(entry["remedy"]) == (entry["verdict"] == "FAIL") for entry in found)


def test_plain_networks_get_the_plain_part_on_the_images_of_a_data_set(run: Run) -> None:
    Path("plain.py").write_text(
        "from torch import nn\ndef ten(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def two(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    result = run("-m", "plain.py:ten", "--data", "digits")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == PLAIN
    assert "the network decides nothing" in result.stderr
    result = run("-m", "plain.py:two", "--data", "digits")
    assert result.exit_code == 1
    assert "has 2 classes, the data set 10" in result.stdout


def test_a_zoo_model_brings_the_shape_of_its_images(run: Run) -> None:
    result = run("-m", "resnet20-cifar10")
    assert result.exit_code == 0, result.output
    assert "18 images give (18, 10)" in result.stdout


def test_a_list_of_logits_leads_to_the_guide(run: Run) -> None:
    result = run(*of("list_of_logits"))
    assert result.exit_code == 1
    assert "as a network with early exits does; make it a dynamic network (see docs/guides" in result.stdout
    assert result.stdout.count("FAIL") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "networks.py:gated"], 2, "nothing says what images the network takes; add --data NAME or"),
        ([*of("gated"), "--data", "digits"], 2, "leave one of them out"),
        (["-m", "networks.py:gated", "--image-shape", "3x8"], 2, "as in 3x32x32, not '3x8'"),
        (["-m", "networks.py:gated", "--image-shape", "0x8x8"], 2, "as in 3x32x32, not '0x8x8'"),
        (["-m", "networks.py:gated", "--data", "digit"], 2, "did you mean digits"),
        (["-m", "absent.py:gated", "--image-shape", "3x8x8"], 3, "no file absent.py"),
        (
            of("wrapped"),
            1,
            "a plain network around a dynamic one, '1', and hides its decisions; return the dynamic one",
        ),
    ],
)
def test_requests_that_cannot_be_met(run: Run, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
