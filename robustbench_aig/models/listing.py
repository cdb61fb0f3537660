"""What ``list models`` prints without ``--macs``: every architecture and every zoo model."""

import json
from typing import Any

from robustbench_aig.models.architectures import ARCHITECTURES
from robustbench_aig.models.resolve import ZOO, zoo_names


def models() -> list[dict[str, Any]]:
    """Names and families of all architectures, then the models that come with weights. Imports no torch."""
    rows: list[dict[str, Any]] = [
        {"name": arch.name, "family": arch.family, "images": arch.scale, "weights": "", "accuracy": None}
        for arch in ARCHITECTURES.values()
    ]
    for name in zoo_names():
        card = json.loads((ZOO / name / "card.json").read_text())
        family = ARCHITECTURES[card["architecture"]].family
        accuracy = card["accuracy"].get("test")
        rows.append(
            {"name": name, "family": family, "images": card["dataset"], "weights": "included", "accuracy": accuracy}
        )
    return rows
