"""What importing the front doors costs. Which part may import which is import-linter's, in ``make lint``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = frozenset(
    {"foolbox", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "torch", "torchattacks", "torchvision"}
)


@pytest.mark.parametrize("module", ["attacks", "cli", "defenses", "robustbench_aig"])
def test_front_doors_import_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(json.loads(answer.stdout))


def processor_seconds(*arguments: str) -> float:
    """User and system time of ``cli.py`` with the arguments, which a busy machine hardly changes; best of three."""

    def once() -> float:
        child = subprocess.Popen([sys.executable, "cli.py", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return usage.ru_utime + usage.ru_stime

    return min(once() for _ in range(3))


@pytest.mark.parametrize("arguments", [("--help",), ("sweep", "--help"), ("list", "attacks"), ("list", "defenses")])
def test_help_and_lists_answer_at_once(arguments: tuple[str, ...]) -> None:
    processor_seconds(*arguments)  # writes the byte code
    assert processor_seconds(*arguments) < 0.5


@pytest.mark.parametrize(
    "arguments", [("--help",), ("list", "attacks"), ("list", "models"), ("sweep", "--model", "no-such")]
)
def test_quick_answers_do_not_import_torch(arguments: tuple[str, ...]) -> None:
    """Usage errors included: -X importtime reports on stderr each module as it is imported."""
    command = [sys.executable, "-X", "importtime", "cli.py", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode in {0, 2}, answer.stderr.splitlines()[-1]
    imported = {
        line.rsplit("|", 1)[1].strip() for line in answer.stderr.splitlines() if line.startswith("import time:")
    }
    assert {"attacks", "defenses"} <= imported
    assert "torch" not in imported
