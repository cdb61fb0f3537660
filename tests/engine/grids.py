"""Small grids that run in a second: an untrained AIG-20 with decided gates on digits."""

from pathlib import Path
from typing import Any

import torch

import attacks
import defenses
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from robustbench_aig.engine.sweep import Done
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import weights_hash
from robustbench_aig.models.classifier import Classifier


def classifier(architecture: str = "aig20", seed: int = 0) -> Classifier:
    """A network for 8 x 8 digits whose gates differ between images; its predictions are arbitrary but not constant."""
    torch.manual_seed(seed)
    network = build(architecture, classes=10, channels=1, norm=((0.3,), (0.4,))).eval()
    for gate in getattr(network, "gates", ()):
        torch.nn.init.normal_(gate.fc2.weight, std=3.0)
        torch.nn.init.normal_(gate.fc2.bias)
    layout = network.layout if is_dynamic(network) else None
    return Classifier(architecture, network, 10, weights_hash(network), architecture, layout, None, (1, 8, 8))


def settings(**changes: Any) -> Settings:
    """FGSM at two epsilons, both gatings, with and without JPEG, four draws."""
    grid: dict[str, Any] = {
        "models": [classifier()],
        "dataset": load_dataset("digits", limit=40),
        "attacks": [attacks.make("fgsm")],
        "epsilons": [Epsilon.of("0.05"), Epsilon.of("0.1")],
        "gatings": (Gating("stochastic"), Gating("deterministic")),
        "defenses": (NO_DEFENSE, defenses.make("jpeg:75")),
        "attackers": ("static",),
        "draws": 4,
    }
    return Settings(**grid | changes)


def run(out: Path) -> Done:
    """The default grid, in this process."""
    torch.set_num_threads(1)
    return sweep(settings(), out)
