"""``doctor``: whether this machine has what the suite needs, one finding per thing."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from robustbench_aig.data.locate import places
from robustbench_aig.provenance import versions


def examine(data_dir: Path | None = None) -> list[dict[str, Any]]:
    """Findings with ``what``, ``verdict`` (``ok``, ``note`` or ``FAIL``) and ``text``.

    Args:
        data_dir: where data sets should be.
    """
    found = [_finding("python", sys.version_info >= (3, 11), sys.version.split()[0], "needs Python 3.11 or later")]
    found += _torch()
    found += [_finding("packages", True, ", ".join(f"{name} {number}" for name, number in versions().items()), "")]
    found.append(_codec())
    folders = places(data_dir)
    there = [str(folder) for folder in folders if Path(folder).exists()]
    text = ", ".join(there) or f"none of {', '.join(str(folder) for folder in folders)} exists; digits need none"
    found.append({"what": "data folders", "verdict": "ok" if there else "note", "text": text})
    free = shutil.disk_usage(".").free / 2**30
    found.append(_finding("disk", free > 1, f"{free:.0f} GiB free here", f"only {free:.2f} GiB free here"))
    found.append(
        _finding(
            "folder", os.access(".", os.W_OK), "writable", "this folder cannot be written; results need -o elsewhere"
        )
    )
    return found


def _finding(what: str, good: bool, well: str, ill: str) -> dict[str, Any]:
    return {"what": what, "verdict": "ok" if good else "FAIL", "text": well if good else ill}


def _torch() -> list[dict[str, Any]]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError, AttributeError) as error:
        text = f"torch and torchvision do not fit each other ({error}); install both from the same index"
        return [{"what": "torch", "verdict": "FAIL", "text": text}]
    found = [_finding("torch", True, f"torch {torch.__version__} with torchvision {torchvision.__version__}", "")]
    if torch.cuda.is_available():
        return [*found, _finding("cuda", True, torch.cuda.get_device_name(), "")]
    return [
        *found,
        {"what": "cuda", "verdict": "note", "text": f"no CUDA device; {torch.get_num_threads()} CPU threads are used"},
    ]


def _codec() -> dict[str, Any]:
    from PIL import features

    version = features.version("libjpeg_turbo")
    if version is None:
        return {
            "what": "jpeg codec",
            "verdict": "note",
            "text": "Pillow has no libjpeg-turbo; JPEG results differ from others'",
        }
    return {"what": "jpeg codec", "verdict": "ok", "text": f"libjpeg-turbo {version}"}
