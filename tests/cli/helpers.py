"""What tests of the command line share."""

from collections.abc import Callable

from click.testing import Result

Run = Callable[..., Result]

TINY = ["--data", "digits", "--limit", "12", "--eps", "0,0.1", "--draws", "2", "--device", "cpu", "-q"]


def refused(result: Result, code: int, text: str) -> None:
    """One line on stderr, nothing on stdout, the right exit code."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr
