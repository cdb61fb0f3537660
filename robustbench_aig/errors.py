"""Problems that the user can fix: one sentence each, with an exit code, and never a traceback."""

import difflib
from collections.abc import Iterable


def readable(name: str) -> str:
    """A file's name as a line of text: bytes that are not UTF-8, and what cannot be printed, are written ``\\xe9``."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    code = ord(letter)
    byte = 0xDC80 <= code <= 0xDCFF  # how Python holds a byte of a file name that is no UTF-8
    return f"\\x{code - 0xDC00:02x}" if byte else letter.encode("unicode_escape").decode()


class UserError(Exception):
    """Something failed that the user can act on; the message is one sentence that says what to do, on one line."""

    exit_code = 1

    def __str__(self) -> str:
        return readable(" ".join(line.strip() for line in super().__str__().splitlines()))


class UsageError(UserError):
    """The request itself is wrong: an unknown name, a bad number, an impossible combination."""

    exit_code = 2


class Prerequisite(UserError):
    """Something the request needs is not there: data, a checkpoint, a GPU, an optional package."""

    exit_code = 3


class Unwritable(UserError):
    """A file cannot be written: the disk is full, or the folder may not be written to."""


def first_line(error: BaseException) -> str:
    """The line of an error's message that says most, which is the last one of TorchScript's; its class without any."""
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # an exception of somebody else's whose __str__ fails
        lines = []
    if not lines:
        return type(error).__name__
    return lines[-1 if "TorchScript interpreter" in lines[0] else 0]


def described(error: BaseException) -> str:
    """An error of somebody else's code in one line: class and message."""
    line, name = first_line(error), type(error).__name__
    return line if line.startswith(name) else f"{name}: {line}"


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
