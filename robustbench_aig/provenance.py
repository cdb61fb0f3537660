"""Where numbers come from: versions, code revision, device and codec, recorded beside every result."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("robustbench-aig", "torch", "torchvision", "torchattacks", "foolbox", "numpy", "scipy", "pillow", "pandas")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that change numbers; a package that is absent is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any] | None:
    """Git commit of the code and whether the tree had changes; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def machine(device: "torch.device") -> dict[str, Any]:
    """The device and its settings that can move the last bits of a result."""
    import torch

    facts: dict[str, Any] = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return facts


def environment(device: "torch.device") -> dict[str, Any]:
    """What ran: versions, code revision and machine, as every saved record has them."""
    return {"versions": versions(), "revision": revision(), "machine": machine(device)}
