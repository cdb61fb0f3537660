"""How much memory a call needs at its peak: as CUDA's allocator counts it, or the kernel's high-water mark on Linux."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from robustbench_aig.device import give_back_memory, resident_memory

T = TypeVar("T")

_MIB = 2**20


def peak(call: Callable[[], T]) -> tuple[T, float | None]:
    """The call's result, and the MiB by which memory rose above what was held before; None where nobody counts it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return result, (torch.cuda.max_memory_allocated() - held) / _MIB
    before = _restart()
    result = call()
    after = high_water()
    return result, None if before is None or after is None else max(0.0, after - before)


def high_water() -> float | None:
    """The largest resident size of this process so far, or since the last restart of the count, in MiB."""
    return resident_memory("VmHWM")


def _restart() -> float | None:
    """Set the high-water mark to the present size, which is returned; None where the kernel does not offer it."""
    try:
        give_back_memory()  # else memory that was freed but not given back would count as held before
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return resident_memory()
