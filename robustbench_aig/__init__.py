"""Robustness curves of image classifiers with gates: the front door for notebooks and scripts.

Everything here is imported when it is first used, so that importing the package is quick and needs no torch.

    import attacks
    import robustbench_aig as rb

    settings = rb.Settings(
        models=[rb.load_model("aig20-cifar10")],
        dataset=rb.load_dataset("cifar10", limit=1000),
        attacks=[attacks.make("fgsm")],
        epsilons=rb.parse_epsilons(["0:16/255:9"]),
    )
    rb.sweep(settings, Path("results/first"))
    rb.read_run("results/first").summary
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_aig.audit.runner import sweep
    from robustbench_aig.contracts.epsilons import parse_epsilons
    from robustbench_aig.contracts.gating import Gating
    from robustbench_aig.contracts.network import DynamicNetwork, Stepwise, skip
    from robustbench_aig.contracts.units import Exit, Router, Switch
    from robustbench_aig.data import load_dataset
    from robustbench_aig.engine.plan import Settings, plan
    from robustbench_aig.models.classifier import Classifier
    from robustbench_aig.models.resolve import load_model
    from robustbench_aig.report import compare_runs, read_run, write_report
    from robustbench_aig.training.recipe import recipe
    from robustbench_aig.training.run import train_model

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "DynamicNetwork",
    "Exit",
    "Gating",
    "Router",
    "Settings",
    "Stepwise",
    "Switch",
    "compare_runs",
    "load_dataset",
    "load_model",
    "parse_epsilons",
    "plan",
    "read_run",
    "recipe",
    "skip",
    "sweep",
    "train_model",
    "write_report",
]

_HOMES = {
    "Classifier": "models.classifier",
    "DynamicNetwork": "contracts.network",
    "Exit": "contracts.units",
    "Gating": "contracts.gating",
    "Router": "contracts.units",
    "Settings": "engine.plan",
    "Stepwise": "contracts.network",
    "Switch": "contracts.units",
    "compare_runs": "report",
    "load_dataset": "data",
    "load_model": "models.resolve",
    "parse_epsilons": "contracts.epsilons",
    "plan": "engine.plan",
    "read_run": "report",
    "recipe": "training.recipe",
    "skip": "contracts.network",
    "sweep": "audit.runner",
    "train_model": "training.run",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
