"""Python files of the user: run once, with every failure as one sentence."""

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from robustbench_aig.errors import Prerequisite, UserError


def brief(error: BaseException) -> str:
    """An exception on one line: its type, and the first line of its message if it has one."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check who may read it.") from None


def need_file(path: Path, what: str) -> None:
    """Refuse a path that is no file.

    Args:
        path: of a Python file.
        what: what is looked for in it, such as ``class``.

    Raises:
        Prerequisite: there is no such file.
    """
    if not path.is_file():
        raise Prerequisite(f"there is no file {path}; give the path of a Python file and the name of its {what}.")


def run_file(path: Path) -> ModuleType:
    """Run a file and return it as a module; a file that has not changed since is not run again.

    Modules in the same folder can be imported from it. What it prints goes to stderr.

    Args:
        path: of an existing Python file.

    Raises:
        UserError: the file raises; the message names the line.
    """
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(f'{path} {digest(path)}'.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{path} raised {brief(error)}{_where(path, error)}; mend the file.") from error
    return module


def _where(path: Path, error: BaseException) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f" in line {lines[-1]}" if lines else ""
