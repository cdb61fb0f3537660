"""A sweep that ends with its audit."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustbench_aig.audit import audit
from robustbench_aig.audit.check import Tier
from robustbench_aig.engine import sweep as engine
from robustbench_aig.engine.plan import Cell, Settings
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.engine.sweep import Done
from robustbench_aig.progress import Progress

AUDIT_IMAGES = 200
"""How many images the full tier tries again."""


def sweep(
    settings: Settings,
    out: Path,
    *,
    tier: Tier | None = "core",
    images: int = AUDIT_IMAGES,
    config: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Done:
    """Compute a grid into the run folder ``out`` as :func:`robustbench_aig.engine.sweep.sweep` does, then audit it.

    Args:
        settings: the grid.
        out: the run folder.
        tier: of checks; None leaves them out, and then the run claims nothing.
        images: how many images the full tier tries again.
        config: what the user asked for, recorded in ``run.json``.
        progress: told how far it is.

    Raises:
        UsageError: the grid makes no sense.
        UserError: the folder cannot be used, or the disk is full; finished cells are kept.
    """

    def examine(folder: RunFolder, cells: list[Cell], weights: dict[str, str]) -> list[dict[str, Any]]:
        assert tier is not None
        return [asdict(finding) for finding in audit(folder, cells, settings, tier, weights, images)]

    return engine.sweep(settings, out, config=config, progress=progress, examine=examine if tier else None)
