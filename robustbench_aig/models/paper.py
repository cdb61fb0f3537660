"""What the paper reports: the rows of its Tables 1 and 2 as data, and the recipe that trains each system here.

Importing this imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class System:
    """One row of the paper's Table 1 (CIFAR-10) or Table 2 (ImageNet).

    Attributes:
        name: as the paper calls it.
        architecture: what it is here, as in ``list models``.
        recipe: how it is trained here, as in ``list recipes``.
        gating: how its gates decide at test time; ``none`` without gates.
        target_rate: t, the target rate of the layers whose rate varies between systems; None without gates.
        gates: form of the Gumbel-softmax in training; empty without gates.
        error: top-1 test error in per cent.
        error5: top-5 test error in per cent; None on CIFAR-10.
        parameters_millions: as printed, misprints included.
        gflops: as printed. For gated systems a mean over images.
        flops_per_mac: how many operations the table counts for one multiply-add: 2 in Table 1 (its 0.5 for ResNet-110
            is 0.253 GMAC), 1 in Table 2 (its 3.8 for ResNet-50 is 3.86 GMAC in the form with strides on 1x1).
        table: 1 or 2.
    """

    name: str
    architecture: str
    recipe: str
    gating: str
    target_rate: float | None
    gates: str
    error: float
    error5: float | None
    parameters_millions: float
    gflops: float
    flops_per_mac: int
    table: int

    @property
    def gmacs(self) -> float:
        """Multiply-adds in 1e9."""
        return self.gflops / self.flops_per_mac


def _cifar(
    name: str, architecture: str, error: float, parameters: float, gflops: float, gating: str = "none"
) -> System:
    gated = gating != "none"
    rate, gates = (0.7, "straight-through") if gated else (None, "")
    return System(name, architecture, "paper", gating, rate, gates, error, None, parameters, gflops, 2, 1)


def _imagenet(
    name: str, architecture: str, error: float, error5: float, parameters: float, gflops: float, **more: Any
) -> System:
    defaults: dict[str, Any] = {"recipe": "paper-imagenet", "gating": "none", "target_rate": None, "gates": ""}
    return System(
        name,
        architecture,
        **(defaults | more),
        error=error,
        error5=error5,
        parameters_millions=parameters,
        gflops=gflops,
        flops_per_mac=1,
        table=2,
    )


def _aig(
    depth: int, rate: float, gating: str, error: float, error5: float, parameters: float, gflops: float, soft: bool
) -> System:
    form = "soft" if soft else "straight-through"
    return _imagenet(
        f"ConvNet-AIG {depth}{' soft gates' if soft else ''} [t={rate}]",
        f"aig{depth}",
        error,
        error5,
        parameters,
        gflops,
        recipe=f"paper-aig{depth}-t{rate}{'-soft' if soft else ''}",
        gating=gating,
        target_rate=rate,
        gates=form,
    )


SYSTEMS: tuple[System, ...] = (
    _cifar("ResNet 110", "resnet110", 6.61, 1.7, 0.5),
    _cifar("Pre-ResNet 110", "preresnet110", 6.37, 1.7, 0.5),
    _cifar("Stoch. Depth 110", "stochastic-depth-resnet110", 5.25, 1.7, 0.5),
    _cifar("ConvNet-AIG 110", "aig110", 5.76, 1.78, 0.41, "stochastic"),
    _cifar("ConvNet-AIG 110*", "aig110", 5.14, 1.78, 0.5, "expected"),
    _imagenet("ResNet 34 (He et al.)", "resnet34", 26.69, 8.58, 21.80, 3.6),
    _imagenet("ResNet 50 (He et al.)", "resnet50", 24.7, 7.8, 25.56, 3.8),
    _imagenet("ResNet 50 (ours)", "resnet50", 23.87, 7.12, 25.56, 3.8),
    _imagenet("ResNet 101 (He et al.)", "resnet101", 23.6, 7.1, 44.54, 7.6),
    _imagenet("ResNet 101 (ours)", "resnet101", 22.63, 6.45, 44.54, 7.6),
    _imagenet("Stochastic Depth ResNet 50", "stochastic-depth-resnet50", 27.75, 9.14, 25.56, 3.8),
    _imagenet("Stochastic Depth ResNet 101", "stochastic-depth-resnet101", 22.80, 6.44, 44.54, 7.6),
    _aig(50, 0.5, "stochastic", 24.42, 7.30, 25.56, 2.95, True),
    _aig(50, 0.7, "stochastic", 23.69, 6.89, 44.54, 3.37, True),
    _aig(50, 0.4, "stochastic", 24.75, 7.61, 26.56, 2.56, False),
    _aig(50, 0.5, "stochastic", 24.42, 7.42, 26.56, 2.71, False),
    _aig(50, 0.6, "stochastic", 24.22, 7.21, 26.56, 2.88, False),
    _aig(50, 0.7, "stochastic", 23.82, 7.08, 26.56, 3.06, False),
    _aig(101, 0.3, "stochastic", 23.02, 6.58, 46.23, 4.33, False),
    _aig(101, 0.5, "stochastic", 22.63, 6.26, 46.23, 5.11, False),
    _aig(50, 0.4, "deterministic", 24.55, 7.5, 26.56, 2.59, False),
    _aig(50, 0.5, "deterministic", 24.16, 7.24, 26.56, 2.75, False),
    _aig(50, 0.6, "deterministic", 23.96, 7.06, 26.56, 2.96, False),
    _aig(50, 0.7, "deterministic", 23.5, 6.92, 26.56, 3.23, False),
    _aig(101, 0.3, "deterministic", 22.78, 6.54, 46.23, 4.31, False),
    _aig(101, 0.5, "deterministic", 22.48, 6.17, 46.23, 5.08, False),
)
"""Every row of both tables, in the paper's order. ``ours`` are the paper's own runs of a network of He et al."""


def best(architecture: str) -> System | None:
    """The paper's row of lowest error for an architecture; None if it has none."""
    rows = [system for system in SYSTEMS if system.architecture == architecture]
    return min(rows, key=lambda system: system.error, default=None)


def find(architecture: str, gating: str, recipe: Mapping[str, Any]) -> System | None:
    """The paper's row for a network trained by ``recipe`` (as a checkpoint's card holds it) and evaluated by
    ``gating``.

    Schedules are told apart by the rate that they set on most of the layers whose rate is below 1.
    """
    rows = [system for system in SYSTEMS if (system.architecture, system.gating) == (architecture, gating)]
    if gating == "none":
        return min(rows, key=lambda system: system.error, default=None)
    rates = recipe.get("target_rate", 0)
    below = [rate for rate in (rates if isinstance(rates, list | tuple) else [rates]) if rate < 1]
    usual = max(set(below), key=below.count, default=1.0)
    same = (row for row in rows if row.gates == recipe.get("gates") and row.target_rate == usual)
    return next(same, None)
