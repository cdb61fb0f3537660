"""The audit of sound networks on CIFAR-10: it complains of nothing but what is there."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import attacks
import defenses
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.models.resolve import load_model
from tests.audit.audits import found, run

pytestmark = [pytest.mark.data, pytest.mark.slow]


def audited(out: Path, model: str, cifar10_dir: Path, images: int, **changes: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    loaded = load_model(model)
    data = load_dataset("cifar10", data_dir=cifar10_dir, limit=images)
    grid = {"models": [loaded], "dataset": data, "attacks": [attacks.make("pgd:steps=10,rel_step=0.25")]}
    return run(out, loaded.network, **grid | {"epsilons": parse_epsilons(["2/255"])} | changes)


def test_the_public_resnet20_trips_nothing(public_resnet20: Path, cifar10_dir: Path, tmp_path: Path) -> None:
    name = f"resnet20@{public_resnet20}"
    assert found(audited(tmp_path / "pgd", name, cifar10_dir, 64)) == set()
    both = [attacks.make("fgsm"), attacks.make("pgd:steps=10,rel_step=0.25")]
    blunt = audited(tmp_path / "fgsm", name, cifar10_dir, 64, attacks=both)
    assert found(blunt) == {("G3", "WARN")}  # on 42 % of clean images its cross-entropy is exactly 0 in float32
    assert blunt["claim_valid"] is True


def test_aig20_trips_nothing(cifar10_dir: Path, tmp_path: Path) -> None:
    grid = {"gatings": (Gating("stochastic"), Gating("deterministic")), "attackers": ("adaptive", "known-noise")}
    document = audited(tmp_path, "aig20-cifar10", cifar10_dir, 32, **grid, eot=8)
    assert found(document) == set()
    assert document["claim_valid"] is True


def test_most_of_what_jpeg_seems_to_give_is_its_missing_gradient(
    public_resnet20: Path, cifar10_dir: Path, tmp_path: Path
) -> None:
    document = audited(
        tmp_path,
        f"resnet20@{public_resnet20}",
        cifar10_dir,
        64,
        attacks=[attacks.make("pgd:steps=20")],
        defenses=(defenses.make("jpeg:75"),),
        attackers=("static", "adaptive"),
    )
    accuracy = pd.read_csv(tmp_path / "summary.csv").query("eps > 0").set_index("attacker").accuracy
    assert accuracy["static"] >= 0.5
    assert accuracy["adaptive"] <= 0.1
    assert accuracy["static"] > accuracy["adaptive/identity"] > accuracy["adaptive"]
    assert {entry["id"]: entry["value"] for entry in document["audit"]}["D1"] > 0.2
    assert found(document) == {("D1", "WARN")}
