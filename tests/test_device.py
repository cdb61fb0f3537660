"""Devices by name, and memory that goes back."""

import ctypes
import subprocess
import sys

import pytest
import torch

from robustbench_aig.device import resident_memory, resolve_device
from robustbench_aig.errors import Prerequisite, UsageError


def test_devices_are_told_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="use auto, cpu, cuda"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(Prerequisite, match="--device auto or cpu"):
            resolve_device("cuda")


FREED = """
import torch
from robustbench_aig.device import give_back_memory, resident_memory

kept, freed = [], []
for _ in range(2000):  # 64 KiB each, so from the heap, with small ones between that stay
    freed.append(torch.ones(2**14))
    kept.append(torch.ones(16))
del freed
before = resident_memory()
give_back_memory()
print(before - resident_memory())
"""


def test_freed_memory_goes_back_to_the_system():
    """In a process of its own, whose heap has no other holes."""
    if resident_memory() is None or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("needs Linux and glibc")
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 64
