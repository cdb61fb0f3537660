"""What architectures and the paper's systems cost, beside the figures that the paper prints for them."""

from functools import cache
from typing import Any

import torch

from robustbench_aig.contracts.trace import Costs
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.architectures import ARCHITECTURES, build
from robustbench_aig.models.macs import costs as count
from robustbench_aig.models.paper import SYSTEMS, System
from robustbench_aig.models.resnet import StochasticDepth
from robustbench_aig.training.recipe import recipe


def costs() -> list[dict[str, Any]]:
    """Parameters and MACs of one image for every architecture: all blocks run, and the part that always runs; beside
    the figures of the paper's row of lowest error for it."""
    rows = []
    for arch in ARCHITECTURES.values():
        parameters, cost = _count(arch.name)
        row: dict[str, Any] = {
            "name": arch.name,
            "family": arch.family,
            "images": "x".join(str(size) for size in arch.image_shape),
            "parameters": parameters,
            "macs": int(cost.ceiling if arch.dynamic else cost.ceiling - cost.gates),
            "macs_floor": int(cost.floor + cost.gates) if arch.dynamic else None,
        }
        rows.append(row | _reported(arch.paper))
    return rows


def systems() -> list[dict[str, Any]]:
    """Every system of the paper's Tables 1 and 2 with the recipe that trains it here.

    ``macs`` of a gated system is what its graphs cost where each layer meets its target rate exactly; trained networks
    execute more, since layers that every image needs stay open.
    """
    rows = []
    for system in SYSTEMS:
        parameters, cost = _count(system.architecture)
        macs = cost.ceiling - cost.gates
        if system.gating != "none":
            targets = torch.tensor(recipe(system.recipe).targets(len(cost.blocks)), dtype=torch.float64)
            macs = cost.ceiling if system.gating == "expected" else float(cost.of(targets))
        row: dict[str, Any] = {
            "system": system.name,
            "architecture": system.architecture,
            "recipe": system.recipe,
            "gating": system.gating,
            "parameters": parameters,
            "macs": int(macs),
        }
        rows.append(row | _reported(system))
    return rows


@cache
def _count(name: str) -> tuple[int, Costs]:
    with torch.device("meta"):
        network = build(name, classes=ARCHITECTURES[name].classes)
    trunk: Any = network.trunk if isinstance(network, ConvNetAIG | StochasticDepth) else network
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, count(trunk, ARCHITECTURES[name].image_shape)


def _reported(system: System | None) -> dict[str, Any]:
    return {
        "paper_parameters_millions": system and system.parameters_millions,
        "paper_gflops": system and system.gflops,
        "paper_flops_per_mac": system and system.flops_per_mac,
        "paper_error": system and system.error,
    }
