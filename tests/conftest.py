"""Fixtures for real data, which is not part of the project: tests that need it skip, with a reason, where it is absent.

Looked for in the folder that ROBUSTBENCH_AIG_DATA names and in ``../shared/data``, unpacked or with its ``prepare.py``.
"""

import os

# Before torch is imported, here and in the processes that tests start: their passes are small, and on a busy machine
# threads that wait for each other make them many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
UNPACKED = ROOT / ".pytest_cache" / "unpacked-data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, so that a mistake shows early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """The folder that holds ``cifar-10-batches-py``, as ``data_dir`` takes it."""
    return _holder("cifar-10-batches-py", "cifar10")


@pytest.fixture(scope="session")
def imagenette_dir() -> Path:
    """The folder that holds ``imagenette128``, as ``data_dir`` takes it."""
    return _holder("imagenette128", "imagenette128")


@pytest.fixture(scope="session")
def public_resnet20() -> Path:
    """The public option-A ResNet-20 for CIFAR-10: a pickle with ``state_dict``, published accuracy 0.9173."""
    for place in _places():
        file = place / "weights" / "resnet20-12fca82f.th"
        if file.is_file():
            return file
    pytest.skip(f"no weights/resnet20-12fca82f.th in {_looked()}")


def _places() -> list[Path]:
    named = os.environ.get("ROBUSTBENCH_AIG_DATA")
    return [*([Path(named)] if named else []), ROOT.parent / "shared" / "data"]


def _looked() -> str:
    return " or ".join(os.path.relpath(place, ROOT) for place in _places())


def _holder(folder: str, packed: str) -> Path:
    for place in _places():
        if (place / "prepare.py").is_file() and (place / packed).is_dir():
            return _unpack(place / "prepare.py", folder, packed)
        if (place / folder).is_dir():
            return place
    pytest.skip(f"no {folder} in {_looked()}")


def _unpack(script: Path, folder: str, packed: str) -> Path:
    """Unpack once per checkout; later sessions, and sessions at the same time, find it there."""
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with FileLock(UNPACKED / ".lock"):
        if not (UNPACKED / folder).is_dir():
            subprocess.run([sys.executable, str(script), str(UNPACKED), "--only", packed], check=True)
    return UNPACKED
