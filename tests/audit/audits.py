"""Sweeps over a hundred digits, for their audits."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import attacks
from robustbench_aig.audit import Tier
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from robustbench_aig.models.checkpoints import Card, weights_hash
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.training.loop import train
from robustbench_aig.training.recipe import recipe

PGD = "pgd:steps=10,rel_step=0.25"
Found = set[tuple[str, str]]


def trained(architecture: str, folder: Path) -> nn.Module:
    """A network after six epochs of digits."""
    torch.set_num_threads(1)
    card = Card(architecture, list("0123456789"), (1, 8, 8), {"norm": [[0.3], [0.4]]}, "digits", seed=0)
    torch.manual_seed(0)
    network = card.build()
    data = load_dataset("digits", split="train"), load_dataset("digits", split="validation", limit=60)
    train(network, card, *data, recipe("digits", epochs=6), folder, device=torch.device("cpu"))
    return network.eval()


def classifier(network: nn.Module) -> Classifier:
    """The network as it is: with its BatchNorm, which ``Classifier.of`` would fold away."""
    layout = network.layout if is_dynamic(network) else None
    return Classifier("model", network.eval(), 10, weights_hash(network), "model", layout)


def run(out: Path, network: nn.Module, tier: Tier | None = "core", images: int = 200, **changes: Any) -> dict[str, Any]:
    """``run.json`` of a sweep over 100 digits with FGSM and PGD at three epsilons."""
    grid: dict[str, Any] = {
        "models": [classifier(copy.deepcopy(network))],
        "dataset": load_dataset("digits", limit=100),
        "attacks": [attacks.make("fgsm"), attacks.make(PGD)],
        "epsilons": parse_epsilons(["0.05,0.1,0.2"]),
        "attackers": ("static",),
    }
    torch.manual_seed(0)
    sweep(Settings(**grid | changes), out, tier=tier, images=images)
    loaded: dict[str, Any] = json.loads((out / "run.json").read_text())
    return loaded


def found(document: dict[str, Any]) -> Found:
    """What the audit complains about: (id, verdict)."""
    return {(entry["id"], entry["verdict"]) for entry in document["audit"] if entry["verdict"] in ("FAIL", "WARN")}
