"""What ``list`` prints, as rows of plain values. Nothing here imports torch, except where costs of models are asked
for."""

from collections.abc import Mapping
from typing import Any

from robustbench_aig import data
from robustbench_aig.registry import Registry
from robustbench_aig.training.recipe import recipes


def rows(what: str, registries: Mapping[str, Registry[Any]], macs: bool = False) -> list[dict[str, Any]]:
    """The rows of one list.

    Args:
        what: ``models``, ``systems``, ``datasets``, ``recipes``, ``checks`` or a key of ``registries``.
        registries: attacks, defences, benchmarks.
        macs: for models, parameters and multiply-adds in place of the zoo.
    """
    if what == "models":
        from robustbench_aig.models import listing

        if not macs:
            return listing.models()
    if what in ("models", "systems"):
        from robustbench_aig.experiments import systems

        return systems.costs() if what == "models" else systems.systems()
    if what == "datasets":
        return [
            {
                "name": entry.name,
                "classes": entry.facts["classes"],
                "splits": " ".join(entry.facts["splits"]),
                "summary": entry.summary,
            }
            for entry in data.registry.entries()
        ]
    if what == "recipes":
        return [
            {"name": name, **{key: str(value) for key, value in table.items()}} for name, table in recipes().items()
        ]
    if what == "checks":
        from robustbench_aig.audit import CHECKS

        return [{"id": check.id, "tier": check.tier, "cost": check.cost, "title": check.title} for check in CHECKS]
    return [
        {"name": entry.name, **{key: _plain(value) for key, value in entry.facts.items()}, "summary": entry.summary}
        for entry in registries[what].entries()
    ]


def _plain(value: Any) -> Any:
    return " ".join(str(part) for part in value) if isinstance(value, tuple | list) else value


def text(found: list[dict[str, Any]]) -> str:
    """The rows as an aligned table, one column per key."""
    keys = list(dict.fromkeys(key for row in found for key in row))
    cells = [[_cell(row.get(key)) for key in keys] for row in found]
    widths = [max(len(key), *(len(line[column]) for line in cells)) for column, key in enumerate(keys)]
    lines = [keys, *cells]
    return "\n".join(
        "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
