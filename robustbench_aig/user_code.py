"""Python files of the user: run as they would be as scripts, with every failure as one sentence."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

from robustbench_aig.errors import Prerequisite, UserError, described


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


def run_file(path: Path) -> tuple[ModuleType, str]:
    """Run a file. Modules in the same folder can be imported from it; what it prints goes to stderr.

    Args:
        path: of an existing Python file.

    Returns:
        The file as a module, and the SHA-256 of it and of the modules that it imported from its folder.

    Raises:
        UserError: the file raises, and the message names the line; or it cannot be read.
    """
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        with redirect_stdout(sys.stderr), beside(path) as helpers:
            spec.loader.exec_module(module)
        code = hashlib.sha256(path.read_bytes())
        for helper in helpers:
            code.update(hashlib.sha256(helper.read_bytes()).digest())
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{path} raised {described(error)}{_where(path, error)}; mend the file.") from error
    return module, code.hexdigest()


def _where(path: Path, error: BaseException) -> str:
    """The last line of the file that an error came through."""
    trace = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in trace if frame.filename == str(path.resolve())]
    if isinstance(error, SyntaxError) and error.filename == str(path.resolve()):
        lines.append(error.lineno)
    return f" in line {lines[-1]}" if lines else ""


_SHARED_NAMES = ("attacks", "defenses", "benchmarks", "cli")
"""Modules of this suite whose names a user's own modules may have too."""

_HELPERS: dict[str, ModuleType] = {}
"""Modules that were found beside files of the user, by name."""


@contextmanager
def beside(path: Path) -> Iterator[list[Path]]:
    """Let imports inside find the modules that lie beside a file first, as if it were run as a script.

    Every file gets its own: two folders may each hold a ``utils.py``, and a user's ``attacks.py`` takes nothing from
    this suite.

    Args:
        path: the file.

    Yields:
        A list that is filled, at the end, with the files that were imported, sorted.
    """
    folder = path.parent.resolve()
    for name in [name for name in _HELPERS if _holds(folder, name)]:
        if sys.modules.get(name) is _HELPERS.pop(name):
            del sys.modules[name]
    ours = [name for name in sys.modules if _top(name) in _SHARED_NAMES and _holds(folder, name)]
    ours = [name for name in ours if not _lies_in(folder, name, sys.modules[_top(name)])]
    hidden = {name: sys.modules.pop(name) for name in ours}
    known, arguments = dict(sys.modules), sys.argv
    sys.path.insert(0, str(folder))
    sys.argv = [str(path)]
    importlib.invalidate_caches()
    files: list[Path] = []
    try:
        yield files
    finally:
        sys.argv = arguments
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        fresh = {name: module for name, module in sys.modules.items() if known.get(name) is not module}
        found = {name: module for name, module in fresh.items() if _lies_in(folder, name, module)}
        files += sorted({Path(str(module.__file__)).resolve() for module in found.values()})
        for name, module in found.items():
            if _top(name) not in _SHARED_NAMES:
                _HELPERS[name] = module
            elif hidden:
                del sys.modules[name]
        sys.modules |= hidden


def _top(name: str) -> str:
    return name.partition(".")[0]


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder holds the module of that name, or its package."""
    return (folder / f"{_top(name)}.py").exists() or (folder / _top(name)).is_dir()


def _lies_in(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether a module of that name was read from the folder, and is none of this suite's package."""
    file = getattr(module, "__file__", None)
    if not file or _top(name) == __package__.partition(".")[0]:
        return False
    place = Path(file).resolve()
    return place == folder / f"{_top(name)}.py" or place.is_relative_to(folder / _top(name))
