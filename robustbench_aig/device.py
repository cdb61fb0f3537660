"""The device that ``--device`` names."""

import ctypes
from pathlib import Path

import torch

from robustbench_aig.errors import Prerequisite, UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UsageError: no device is called that.
        Prerequisite: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UsageError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:N.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise Prerequisite(f"there is no device '{name}' ({count} CUDA devices found); use --device auto or cpu.")
    return torch.device(name)


def resident_memory(field: str = "VmRSS") -> float | None:
    """What of this process is in memory now, in MiB, or by "VmHWM" at most was; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) / 1024 if found else None


def give_back_memory() -> None:
    """Return the pages of freed tensors to the system, where the C library can (glibc).

    Its heap keeps what was freed, in pieces of many sizes as attacks' batches shrink, so that a long sweep would peak
    higher than a short one.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library: nothing to ask it
        return
