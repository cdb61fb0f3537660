"""Problems that the user can fix: one sentence each, with an exit code, and never a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something failed that the user can act on; the message is one sentence that says what to do."""

    exit_code = 1


class UsageError(UserError):
    """The request itself is wrong: an unknown name, a bad number, an impossible combination."""

    exit_code = 2


class Prerequisite(UserError):
    """Something the request needs is not there: data, a checkpoint, a GPU, an optional package."""

    exit_code = 3


class Unwritable(UserError):
    """A file cannot be written: the disk is full, or the folder may not be written to."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; the name of its class where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not registered, with the closest known names first.

    Args:
        kind: what the name should have named, such as ``attack``.
        name: what the user wrote.
        known: every valid name.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}."
    return UsageError(f"unknown {kind} '{name}'; {hint}")
