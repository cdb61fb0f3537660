"""What all fuzzing holds, and how many cases it has seen.

``ROBUSTBENCH_AIG_FUZZ=20`` runs twenty times as many cases, drawn anew; without it they are the same ones everywhere.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, settings

from cli import cli
from robustbench_aig.errors import UserError
from robustbench_aig.report import read_run

MORE = int(os.environ.get("ROBUSTBENCH_AIG_FUZZ", "1"))

CODES = {0, 1, 2, 3, 4, 5, 130}
"""The documented exit codes."""

PRINTED = {"building", "looking"}
"""What models print."""

CASES: Counter[str] = Counter()
"""Cases by kind, for the summary of the session."""


def cases(number: int) -> Callable[[Any], Any]:
    """Run a test on so many cases, which are drawn once and for all."""
    return settings(
        max_examples=number * MORE,
        derandomize=MORE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a case that fails is short enough; to shrink sweeps takes minutes
    )


def run(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def held(kind: str, result: Result, out: Path) -> None:
    """What must be true of every command, whatever it was given.

    Args:
        kind: counts the case.
        result: of the command.
        out: the run folder that it was told to write, which did not exist before.
    """
    CASES[kind] += 1
    told = (result.exit_code, result.stdout, result.stderr)
    assert result.exception is None or isinstance(result.exception, SystemExit), told
    assert result.exit_code in CODES, told
    assert "Traceback" not in result.stderr, told
    if result.exit_code in (1, 2, 3):
        *before, last = result.stderr.splitlines()
        assert last.startswith("Error: "), told
        assert all(line.startswith("failed: ") or line in PRINTED for line in before), told
        assert result.stdout == "", told
    if result.exit_code in (2, 3):
        assert not out.exists(), told
    whole(out, finished=result.exit_code in (0, 4, 5))


def whole(out: Path, *, finished: bool) -> None:
    """Nothing in a run folder is half-written, and if the sweep came to its end its tables can be read."""
    if not out.exists():
        return
    assert not list(out.rglob(".*-*"))
    assert isinstance(json.loads((out / "run.json").read_text()), dict)
    for cell in out.glob("cells/*"):
        assert isinstance(json.loads((cell / "result.json").read_text()), dict)
    if finished:
        accuracy = read_run(out).summary["accuracy"]
        assert accuracy.between(0, 1).all()


def sentence(error: UserError) -> str:
    """The message of a user error, which must be one line that says something."""
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    assert "Traceback" not in text
    return text
