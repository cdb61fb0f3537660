"""What architectures and the paper's systems cost, beside the figures that the paper prints for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from robustbench_aig.contracts.network import costs_of, is_dynamic
from robustbench_aig.contracts.trace import Costs
from robustbench_aig.contracts.units import Layout
from robustbench_aig.models.architectures import ARCHITECTURES, build
from robustbench_aig.models.macs import full_macs
from robustbench_aig.models.paper import SYSTEMS, System
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
            "macs": int(cost.most),
            "macs_floor": None if cost.layout is None else int(cost.least),
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
        macs = cost.most
        if system.gating not in ("none", "expected"):
            macs = cost.at(recipe(system.recipe).targets(len(cost.layout or ())))
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


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one image.

    Attributes:
        most: of the dearest route, or of a plain network.
        least: of the cheapest route.
        layout: of a dynamic network.
        costs: of its units.
    """

    most: float
    least: float
    layout: Layout | None = None
    costs: Costs | None = None

    def at(self, rates: Sequence[float]) -> float:
        """Where every unit runs for its share (L,) of the images."""
        assert self.costs is not None
        return float(self.costs.of(torch.tensor(rates, dtype=torch.float64)))


@cache
def _count(name: str) -> tuple[int, Cost]:
    with torch.device("meta"):
        network = build(name, classes=ARCHITECTURES[name].classes)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    shape = ARCHITECTURES[name].image_shape
    if not is_dynamic(network):
        macs = full_macs(network, shape)
        return parameters, Cost(macs, macs)
    costs, layout = costs_of(network, shape), network.layout
    return parameters, Cost(costs.extreme(layout, 1), costs.extreme(layout, -1), layout, costs)


def _reported(system: System | None) -> dict[str, Any]:
    return {
        "paper_parameters_millions": system and system.parameters_millions,
        "paper_gflops": system and system.gflops,
        "paper_flops_per_mac": system and system.flops_per_mac,
        "paper_error": system and system.error,
    }
