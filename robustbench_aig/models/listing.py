"""What ``list models`` prints: every architecture and zoo model, and on request what each costs."""

import json
from typing import Any

from robustbench_aig.models.architectures import ARCHITECTURES, build
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


def costs() -> list[dict[str, Any]]:
    """Parameters and MACs of one image for every architecture: all blocks run, and the part that always runs."""
    import torch

    from robustbench_aig.models.aig import ConvNetAIG
    from robustbench_aig.models.macs import costs as count
    from robustbench_aig.models.resnet import StochasticDepth

    rows = []
    for arch in ARCHITECTURES.values():
        with torch.device("meta"):
            network = build(arch.name, classes=arch.classes)
        gated = isinstance(network, ConvNetAIG)
        trunk: Any = network.trunk if isinstance(network, ConvNetAIG | StochasticDepth) else network
        cost = count(trunk, arch.image_shape)
        rows.append(
            {
                "name": arch.name,
                "family": arch.family,
                "images": "x".join(str(size) for size in arch.image_shape),
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "macs": int(cost.ceiling if gated else cost.ceiling - cost.gates),
                "macs_floor": int(cost.floor + cost.gates) if gated else None,
            }
        )
    return rows
