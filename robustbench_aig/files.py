"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robustbench_aig.errors import Unwritable


def ensure_folder(path: Path) -> None:
    """Make the folder ``path`` if it is not there, and try that it can be written.

    Raises:
        Unwritable: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise Unwritable(f"cannot write {path} ({error.strerror}); choose a folder that you may write to.") from None


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; when the block ends well it is synced and takes the name, else it goes.

    Raises:
        Unwritable: the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise Unwritable(f"cannot write {path} ({error.strerror}); choose a folder that you may write to.") from None
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise Unwritable(
            f"cannot write {path} ({error.strerror or error}); free some space and run the same command."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
