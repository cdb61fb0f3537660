"""The guides are run as printed: python blocks go into the files that the text names, and commands run beside them."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from cli import cli

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code, and the text between it and the block before."""

    language: str
    code: str
    before: str


def blocks(guide: Path) -> Iterator[Block]:
    text, end = guide.read_text(), 0
    for found in FENCE.finditer(text):
        yield Block(found[1], found[2], text[end : found.start()])
        end = found.end()


def follow(guide: Path) -> dict[str, str]:
    """Do what a guide says in the working folder; what its commands print, by command."""
    printed = {}
    for block in blocks(guide):
        if block.language == "python":
            name = re.findall(r"(?:as|with) `(\w+\.py)`", block.before)[-1]
            Path(name).write_text(block.code)
        elif not block.language:
            for line in block.code.replace("\\\n", " ").splitlines():
                printed[line] = do(shlex.split(line))
    return printed


def do(words: list[str]) -> str:
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return ""
    assert words[0] == "robustbench-aig"
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
    return result.stdout


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def ratios(run: str) -> pd.DataFrame:
    gates = pd.read_csv(Path(run) / "gates.csv")
    ratio = gates[gates["measure"] == "macs_ratio"]
    return ratio.set_index(["gating", "attack", "eps"])["value"]


@pytest.mark.slow
def test_the_guide_to_dynamic_networks() -> None:
    guide = GUIDES / "dynamic-network.md"
    printed = follow(guide)
    checks = [text for command, text in printed.items() if " check " in command]
    assert len(checks) == 2
    assert not any("FAIL" in text for text in checks)
    for line in next(block for block in blocks(guide) if block.code.startswith("PASS")).code.splitlines():
        assert line[:24] in checks[0]

    exits = ratios("results/exits")
    slow = exits["deterministic", "gates:open"]
    assert slow[0.1] > slow[0.05] > 1.5
    assert slow[0.1] > exits["deterministic", "fgsm", 0.1] > 1
    summary = pd.read_csv("results/exits/summary.csv").set_index(["attack", "eps"])["accuracy"]
    assert summary["gates:open", 0.1] > 0.85 > summary["fgsm", 0.1]
    for figure in ("execution.png", "compute.png"):
        assert (Path("results/exits/figures") / figure).exists()

    gated = ratios("results/gated")["deterministic"]
    assert gated["gates:open", 0.1] > 1.1
    assert gated["gates:close", 0.1] < 0.9

    names = ("exits.py", "dynamic.py", "gated.py")
    lines = {name: sum(map(bool, Path(name).read_text().splitlines())) for name in names}
    assert lines["exits.py"] + lines["dynamic.py"] < 60
    assert lines["gated.py"] < 60


def test_links_of_the_guides_lead_somewhere() -> None:
    for guide in GUIDES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", FENCE.sub("", guide.read_text())):
            assert "://" in link or (guide.parent / link).exists(), f"{guide.name}: {link}"
