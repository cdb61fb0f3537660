"""The audit: each broken model or attack trips exactly the checks meant for it, and sound ones trip none."""

import ast
import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import attacks
import defenses
from attacks.square import Square
from robustbench_aig import audit as audit_package
from robustbench_aig.audit import CHECKS, cost
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from tests.audit.audits import PGD, Found, classifier, found, run
from tests.fixtures import broken_attacks, broken_models


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_every_check_is_in_the_table_once_and_explains_itself() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) >= 25
    for check in CHECKS:
        assert check.load().__doc__
        assert all((check.title, check.cost, check.threshold, check.sound.endswith(".")))


def test_the_table_lists_without_torch() -> None:
    program = "import sys; from robustbench_aig.audit import CHECKS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_checks_import_neither_attacks_nor_defenses() -> None:
    for file in Path(str(audit_package.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("attacks", "defenses") for name in names)


def test_a_sound_model_trips_nothing(plain: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, plain)
    assert found(document) == set()
    assert document["claim_valid"] is True
    assert {entry["id"] for entry in document["audit"]} == {check.id for check in CHECKS if check.tier == "core"}
    keys = {"id", "title", "verdict", "text", "cell", "value", "threshold"}
    assert all(set(entry) == keys and entry["text"] for entry in document["audit"])


def test_without_an_audit_a_run_claims_nothing(plain: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, plain, tier=None)
    assert (document["audit"], document["claim_valid"]) == ([], None)


def test_fgsm_alone_is_an_upper_bound_not_a_failure(plain: nn.Module, gated: nn.Module, tmp_path: Path) -> None:
    single = [attacks.make("fgsm")]
    assert found(run(tmp_path / "plain", plain, attacks=single)) == {("S2", "WARN")}
    random = run(tmp_path / "gated", gated, attacks=single, gatings=(Gating("stochastic"),))
    assert found(random) == {("S2", "WARN"), ("R3", "WARN")}
    assert random["claim_valid"] is True


def test_sound_random_gates_trip_no_check_that_fails(gated: nn.Module, tmp_path: Path) -> None:
    document = run(
        tmp_path,
        gated,
        dataset=load_dataset("digits", limit=60),
        attacks=[attacks.make(PGD)],
        epsilons=parse_epsilons(["0.1"]),
        attackers=("static", "adaptive"),
        eot=4,
    )
    assert document["claim_valid"] is True
    verdicts = {entry["id"]: entry["verdict"] for entry in document["audit"]}
    for check in ("T1", "T3", "T4", "G1", "G2", "G4", "R1", "R2", "R4", "R6", "S7", "S8", "U"):
        assert verdicts[check] == "PASS", check
    assert verdicts["G5"] in ("PASS", "WARN")
    assert verdicts["R5"] in ("PASS", "INFO")


MODELS: list[tuple[Callable[[nn.Module], nn.Module], Found]] = [
    (broken_models.ZeroGradient, {("G2", "FAIL"), ("S8", "FAIL")}),
    (broken_models.QuantisedInput, {("G2", "FAIL"), ("S8", "FAIL")}),
    (broken_models.DetachedInput, {("G1", "FAIL")}),
    (broken_models.LargeLogits, {("G2", "FAIL"), ("G3", "WARN")}),
    (broken_models.SoftmaxHead, {("T3", "FAIL")}),
    (broken_models.HalfPrecision, {("T3", "FAIL")}),
    (broken_models.BatchCentred, {("T3", "FAIL")}),
    (broken_models.TrainModeBatchNorm, {("T3", "FAIL"), ("T4", "FAIL")}),
    (broken_models.NoisyLogits, {("R1", "FAIL"), ("T4", "FAIL")}),
    (broken_models.FlippedGradient, {("G4", "FAIL"), ("S8", "FAIL"), ("S2", "WARN"), ("U", "WARN")}),
]


@pytest.mark.parametrize(("broken", "expected"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_broken_models(
    broken: Callable[[nn.Module], nn.Module], expected: Found, plain: nn.Module, tmp_path: Path
) -> None:
    document = run(tmp_path, broken(plain))
    assert found(document) == expected
    assert document["claim_valid"] is False


def test_saturated_logits_do_not_fool_the_margin(plain: nn.Module, tmp_path: Path) -> None:
    assert found(run(tmp_path, broken_models.LargeLogits(plain), attacks=[attacks.make(PGD)])) == set()


ATTACKS: list[tuple[Attack, Found]] = [
    (broken_attacks.OverBudget(), {("T1", "FAIL")}),
    (broken_attacks.Black(), {("T1", "FAIL")}),
    (broken_attacks.NotANumber(), {("T1", "FAIL")}),
    (broken_attacks.Clean(), {("U", "FAIL")}),
    (broken_attacks.Shrinking(steps=10), {("S1", "FAIL")}),
    (broken_attacks.Trains(steps=5), {("T3", "FAIL"), ("T4", "FAIL")}),
]


@pytest.mark.parametrize(("broken", "expected"), ATTACKS, ids=lambda value: getattr(value, "name", ""))
def test_broken_attacks(broken: Attack, expected: Found, plain: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, plain, attacks=[attacks.make(PGD), broken])
    assert found(document) == expected
    assert document["claim_valid"] is False


def test_an_iterated_attack_that_loses_to_a_single_step_fails(plain: nn.Module, tmp_path: Path) -> None:
    timid = attacks.make("pgd:steps=2,rel_step=0.01,random_start=false")
    assert found(run(tmp_path, plain, attacks=[attacks.make("fgsm"), timid])) == {("S2", "FAIL")}


def test_a_gradient_free_attack_ahead_of_gradients_fails(plain: nn.Module, tmp_path: Path) -> None:
    square = Square(queries=40)
    masked = run(tmp_path / "masked", broken_models.ZeroGradient(plain), attacks=[attacks.make(PGD), square])
    assert ("S6", "FAIL") in found(masked)
    assert found(run(tmp_path / "sound", plain, attacks=[attacks.make(PGD), square])) == set()


@pytest.mark.parametrize(
    ("kind", "symptom"), [("DisobedientGates", "do not follow"), ("TrainingGates", "training flag")]
)
def test_gates_keyed_on_training(kind: str, symptom: str, gated: nn.Module, tmp_path: Path) -> None:
    broken = getattr(broken_models, kind)(copy.deepcopy(gated.trunk))
    broken.load_state_dict(gated.state_dict())
    document = run(tmp_path, broken, attacks=[attacks.make(PGD)], gatings=(Gating("stochastic"),))
    assert found(document) == {("R6", "FAIL"), ("R3", "WARN")}
    assert any(symptom in entry["text"] for entry in document["audit"] if entry["id"] == "R6")


def test_jpeg_without_surrogate(plain: nn.Module, tmp_path: Path) -> None:
    opaque = (broken_models.OpaqueJpeg(),)
    unaware = run(tmp_path / "static", plain, attacks=[attacks.make(PGD)], defenses=opaque)
    assert found(unaware) == {("D1", "WARN")}
    aware = run(tmp_path / "adaptive", plain, attacks=[attacks.make(PGD)], defenses=opaque, attackers=("adaptive",))
    assert found(aware) == {("G1", "FAIL")}


def test_what_jpeg_hides_is_told(plain: nn.Module, tmp_path: Path) -> None:
    document = run(
        tmp_path,
        plain,
        attacks=[attacks.make(PGD)],
        defenses=(NO_DEFENSE, defenses.make("jpeg:30")),
        attackers=("static", "adaptive"),
    )
    assert found(document) <= {("D1", "WARN"), ("U", "WARN"), ("D2", "WARN"), ("D3", "WARN")}
    gap = next(entry for entry in document["audit"] if entry["id"] == "D1")
    assert gap["verdict"] == "WARN"
    summary = pd.read_csv(tmp_path / "summary.csv").query("defense == 'jpeg:30' and eps > 0").set_index("eps")
    static, adaptive = (summary.query(f"attacker == '{name}'").accuracy for name in ("static", "adaptive"))
    assert gap["value"] == pytest.approx((static - adaptive).max())
    assert {entry["id"]: entry["verdict"] for entry in document["audit"]}["D4"] in ("PASS", "INFO")


def test_the_control_attack_is_compared_with_the_clean_images(gated: nn.Module, tmp_path: Path) -> None:
    control = attacks.make("identity")
    document = run(tmp_path, gated, attacks=[control], attackers=("static", "adaptive"), draws=10, eot=2)
    assert found(document) == set()


def test_the_full_tier_tries_stronger_attacks(plain: nn.Module, tmp_path: Path) -> None:
    weak = attacks.make("pgd:steps=2,rel_step=0.4")
    grid = {"attacks": [weak], "epsilons": parse_epsilons(["0.1"]), "tier": "full", "images": 60}
    sound = run(tmp_path / "sound", plain, **grid)
    verdicts = {entry["id"]: entry["verdict"] for entry in sound["audit"]}
    assert set(verdicts) == {check.id for check in CHECKS}
    assert verdicts["S3"] == "WARN"
    assert verdicts["S5"] == "PASS"
    assert verdicts["T5"] == "PASS"
    masked = run(tmp_path / "masked", broken_models.QuantisedInput(plain), **grid)
    assert ("S5", "FAIL") in found(masked)


def test_eight_bit_images_keep_the_budget(plain: nn.Module, tmp_path: Path) -> None:
    """0.05 is 12.75 levels, of which 8-bit images can use 12."""
    grid = {"attacks": [attacks.make(PGD)], "tier": "full", "images": 100}
    whole = run(tmp_path / "whole", plain, epsilons=parse_epsilons(["20/255"]), **grid)
    assert {entry["id"]: entry["verdict"] for entry in whole["audit"]}["T2"] == "PASS"
    document = run(tmp_path / "part", plain, epsilons=parse_epsilons(["0.05"]), **grid)
    assert ("T2", "WARN") in found(document)


def test_the_core_tier_costs_less_than_a_tenth_of_a_pgd_sweep(plain: nn.Module) -> None:
    """A backward pass counts as two forward passes."""
    data, attack = load_dataset("digits"), attacks.make("pgd:steps=20,stop=false")
    model = classifier(copy.deepcopy(plain))
    found = cost.measure(Settings([model], data, [attack], parse_epsilons(["0.1"]), draws=10))
    assert found.sweep.backwards == 20 * len(data)
    assert 0 < found.audit.passes < 0.1 * found.sweep.passes
    assert not any(module._forward_pre_hooks for module in model.network.modules())
