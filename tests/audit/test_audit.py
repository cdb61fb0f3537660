"""The audit: broken attacks and single checks; ``test_matrix.py`` has the models, sound and broken."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attacks
import defenses
from attacks.square import Square
from robustbench_aig import audit as audit_package
from robustbench_aig.audit import CHECKS, cost
from robustbench_aig.audit.text import difference, points
from robustbench_aig.contracts.attack import Attack
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from robustbench_aig.statistics.intervals import Interval
from tests.audit.audits import PGD, Found, classifier, found, run
from tests.fixtures import broken_attacks, broken_models


def told(document: dict[str, Any], check: str) -> list[dict[str, Any]]:
    """The findings of one check."""
    return [entry for entry in document["audit"] if entry["id"] == check]


def test_every_check_explains_itself() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) >= 30
    for check in CHECKS:
        assert check.load().__doc__
        assert all((check.title, check.cost, check.threshold, check.sound.endswith(".")))
        assert check.tier in ("core", "full")


def test_the_checks_are_listed_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", "cli.py", "list", "checks", "--json"]
    answer = subprocess.run(
        command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True
    )
    assert [row["id"] for row in json.loads(answer.stdout)] == [check.id for check in CHECKS]
    imported = {line.rsplit("|", 1)[1].strip() for line in answer.stderr.splitlines() if "import time:" in line}
    assert imported.isdisjoint({"torch", "numpy", "pandas", "robustbench_aig.audit.checks.gradients"})


def test_checks_import_neither_attacks_nor_defenses() -> None:
    for file in Path(str(audit_package.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("attacks", "defenses") for name in names)


def test_a_sound_model_trips_nothing(deep: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, deep)
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


LISTS: list[tuple[list[str], str, str]] = [
    (["fgsm", PGD], "linf", "0.05,0.1,0.2"),
    ([PGD], "linf", "0.3"),
    ([PGD], "linf", "0.001"),
    ([PGD, "fgsm"], "l2", "0.2,3"),
    (["foolbox:L1ProjectedGradientDescentAttack:steps=5"], "l1", "12"),
    (["foolbox:L0FMNAttack:steps=10"], "l0", "3"),
    (["auto:steps=3,restarts=1,queries=5"], "linf", "0.1"),
]


@pytest.mark.parametrize("name", [None, "FlippedGradient", "ThirdOfImagesFlipped", "EveryOtherPixel"])
def test_what_is_said_of_gradients_does_not_hang_on_attacks_norms_and_budgets(
    name: str | None, plain: nn.Module, tmp_path: Path
) -> None:
    network = plain if name is None else getattr(broken_models, name)(plain)
    seen = []
    for number, (names, norm, budgets) in enumerate(LISTS):
        chosen = [attacks.make(attack, norm=norm) for attack in names]
        data = load_dataset("digits", limit=16)
        document = run(
            tmp_path / str(number), network, dataset=data, attacks=chosen, epsilons=parse_epsilons([budgets])
        )
        seen.append([(e["verdict"], e["value"]) for check in ("G1", "G4", "G7", "R1") for e in told(document, check)])
    assert all(said == seen[0] for said in seen)
    assert ("FAIL" in {verdict for verdict, _ in seen[0]}) is (name is not None)


def test_saturated_logits_do_not_fool_the_margin(plain: nn.Module, tmp_path: Path) -> None:
    large = broken_models.LargeLogits(plain)
    document = run(tmp_path / "pgd", large, attacks=[attacks.make(PGD)])
    assert found(document) == set()
    assert [entry["verdict"] for entry in told(document, "G3")] == ["INFO"]
    assert ("G3", "WARN") in found(run(tmp_path / "fgsm", large, attacks=[attacks.make("fgsm")]))


@pytest.mark.parametrize("name", ["auto:steps=3,restarts=1,queries=5", "torchattacks:MIFGSM:steps=3"])
def test_attacks_without_a_loss_of_that_name_are_not_called_blunt(name: str, plain: nn.Module, tmp_path: Path) -> None:
    data = load_dataset("digits", limit=16)
    document = run(tmp_path, broken_models.LargeLogits(plain), dataset=data, attacks=[attacks.make(name)])
    assert [entry["verdict"] for entry in told(document, "G3")] == ["INFO"]


@pytest.mark.parametrize(
    "name",
    [
        "torchattacks:AutoAttack:steps=2",
        "torchattacks:APGD:steps=3",
        "foolbox:LInfFMNAttack:steps=5",
        "foolbox:LinfRepeatedAdditiveUniformNoiseAttack:repeats=3",
        "torchattacks:VANILA",
        "identity",
    ],
)
def test_attacks_that_return_what_they_cannot_break_as_it_was(name: str, plain: nn.Module, tmp_path: Path) -> None:
    grid = {"dataset": load_dataset("digits", limit=12), "epsilons": parse_epsilons(["0.001"])}
    document = run(tmp_path, plain, attacks=[attacks.make(name)], **grid)
    unmoved = [file for file in tmp_path.glob("cells/*/samples.parquet") if (pd.read_parquet(file).linf == 0).all()]
    assert len(unmoved) == 2, "the clean cell, and the attack"
    assert found(document) == set()


ATTACKS: list[tuple[Attack, Found]] = [
    (broken_attacks.OverBudget(), {("T1", "FAIL")}),
    (broken_attacks.Black(), {("T1", "FAIL")}),
    (broken_attacks.NotANumber(), {("T1", "FAIL")}),
    (broken_attacks.Clean(), {("U", "FAIL")}),
    (broken_attacks.Shrinking(steps=10), {("S1", "FAIL")}),
]


@pytest.mark.parametrize(("broken", "expected"), ATTACKS, ids=lambda value: getattr(value, "name", ""))
def test_broken_attacks(broken: Attack, expected: Found, plain: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, plain, attacks=[attacks.make(PGD), broken])
    assert found(document) == expected
    assert document["claim_valid"] is False


def test_an_attack_that_trains_the_model(deep: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, deep, attacks=[broken_attacks.Trains(steps=5)])
    assert {("T3", "FAIL"), ("T4", "FAIL")} <= found(document)


def test_an_iterated_attack_that_loses_to_a_single_step_is_weak_or_masked(plain: nn.Module, tmp_path: Path) -> None:
    """A weak attack warns; a gradient that vanishes after the first step fails the checks of gradients."""
    timid = attacks.make("pgd:steps=2,rel_step=0.01,random_start=false")
    document = run(tmp_path / "weak", plain, attacks=[attacks.make("fgsm"), timid])
    assert found(document) == {("S2", "WARN")}
    assert "raise their steps" in told(document, "S2")[0]["text"]

    class Once(nn.Module):
        """Has its gradient at the clean images only, where a single step takes it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = plain

        def forward(self, images: Tensor) -> Tensor:
            levels = 16 * images
            clean = ((levels - levels.round()).abs() < 1e-4).flatten(1).all(1).view(-1, 1, 1, 1)
            logits: Tensor = self.network(torch.where(clean, images, images.detach()))
            return logits

    masked = run(tmp_path / "masked", Once(), attacks=[attacks.make("fgsm"), attacks.make(f"{PGD},random_start=false")])
    assert {("G2", "FAIL"), ("G7", "FAIL"), ("S8", "FAIL")} <= found(masked)


def test_a_gradient_free_attack_ahead_of_gradients_is_masking_or_weakness(plain: nn.Module, tmp_path: Path) -> None:
    square = Square(queries=40)
    masked = run(tmp_path / "masked", broken_models.ZeroGradient(plain), attacks=[attacks.make(PGD), square])
    assert ("S6", "FAIL") in found(masked)
    assert found(run(tmp_path / "sound", plain, attacks=[attacks.make(PGD), square])) == set()
    weak = attacks.make("pgd:steps=1,rel_step=0.01,random_start=false")
    document = run(tmp_path / "weak", plain, attacks=[weak, Square(queries=100)])
    assert ("S6", "WARN") in found(document)
    assert not any(verdict == "FAIL" for _, verdict in found(document))


def test_a_model_that_changes_its_input_in_place_is_told_from_a_random_one(plain: nn.Module, tmp_path: Path) -> None:
    document = run(tmp_path, broken_models.InPlace(plain), attacks=[attacks.make("noise")])
    assert told(document, "R1")[0]["verdict"] == "PASS"
    assert told(document, "T3")[0]["verdict"] == "WARN"
    assert "in place" in told(document, "T3")[0]["text"]


@pytest.mark.parametrize("name", ["NaNLogitsOfSome", "NaNOffGrid"])
def test_images_with_nan_logits_are_counted_on_all_images(name: str, plain: nn.Module, tmp_path: Path) -> None:
    data = load_dataset("digits", limit=60)
    document = run(tmp_path, getattr(broken_models, name)(plain), dataset=data, attacks=[attacks.make(PGD)])
    images = data.images(torch.arange(60))
    clean = int(broken_models.third(images).sum()) if name == "NaNLogitsOfSome" else 0
    texts = [entry["text"] for entry in told(document, "T6")]
    assert all(entry["verdict"] == "FAIL" for entry in told(document, "T6"))
    assert any(text.startswith(f"{clean} of 60 clean images") for text in texts) is (clean > 0)
    assert any("of 60 attacked images" in text for text in texts)
    summary = pd.read_csv(tmp_path / "summary.csv").set_index("eps")
    right = (plain(images).argmax(1) == data.labels) & ~broken_models.third(images).flatten()
    assert summary.accuracy[0] == pytest.approx(right.float().mean() if clean else summary.accuracy[0])
    assert summary.vote_accuracy[0] == summary.accuracy[0]


def test_gates_keyed_on_training_name_what_they_do(gated: nn.Module, tmp_path: Path) -> None:
    for kind, symptom in (("DisobedientGates", "do not follow"), ("TrainingGates", "training flag")):
        broken = getattr(broken_models, kind)(gated.trunk)
        broken.load_state_dict(gated.state_dict())
        grid = {"dataset": load_dataset("digits", limit=24), "gatings": (Gating("stochastic"),)}
        document = run(tmp_path / kind, broken.eval(), attacks=[attacks.make("fgsm")], **grid)
        assert symptom in told(document, "R6")[0]["text"]


def test_jpeg_without_surrogate_is_an_upper_bound(plain: nn.Module, tmp_path: Path) -> None:
    opaque = (broken_models.OpaqueJpeg(),)
    assert found(run(tmp_path, plain, attacks=[attacks.make(PGD)], defenses=opaque)) == {("D1", "WARN")}


def test_what_jpeg_hides_is_told_in_points(plain: nn.Module, tmp_path: Path) -> None:
    document = run(
        tmp_path,
        plain,
        dataset=load_dataset("digits", limit=60),
        attacks=[attacks.make(PGD)],
        defenses=(NO_DEFENSE, defenses.make("jpeg:30")),
        attackers=("static", "adaptive"),
    )
    assert found(document) <= {("D1", "WARN"), ("U", "WARN"), ("D2", "WARN"), ("D3", "WARN")}
    (gap,) = told(document, "D1")
    assert gap["verdict"] == "WARN"
    summary = pd.read_csv(tmp_path / "summary.csv").query("defense == 'jpeg:30' and eps > 0").set_index("eps")
    static, adaptive = (summary.query(f"attacker == '{name}'").accuracy for name in ("static", "adaptive"))
    assert gap["value"] == pytest.approx((static - adaptive).max())
    assert f"{100 * gap['value']:+.1f} points [" in gap["text"]
    assert told(document, "D4")[0]["verdict"] in ("PASS", "INFO")


def test_a_gain_that_is_not_shown_is_stated_with_its_interval(plain: nn.Module, tmp_path: Path) -> None:
    document = run(
        tmp_path,
        plain,
        dataset=load_dataset("digits", limit=24),
        attacks=[attacks.make("fgsm")],
        epsilons=parse_epsilons(["0.1"]),
        defenses=(NO_DEFENSE, defenses.make("median")),
        attackers=("adaptive",),
    )
    (gain,) = told(document, "D4")
    if gain["verdict"] == "INFO":
        assert f"{100 * gain['value']:+.1f} points [" in gain["text"]
        assert "no gain is shown" in gain["text"]
    else:
        assert gain["verdict"] == "PASS"


def test_differences_are_points_with_their_interval() -> None:
    assert points(0.516) == "51.6 points"
    assert difference(Interval(0.141, -0.002, 0.283, "newcombe")) == "+14.1 points [-0.2, +28.3]"


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
    document = run(tmp_path / "part", plain, epsilons=parse_epsilons(["0.1,0.15"]), **grid)
    assert ("T2", "WARN") in found(document)


def test_the_core_tier_costs_less_than_a_tenth_of_a_pgd_sweep(plain: nn.Module) -> None:
    """A backward pass counts as two forward passes."""
    data, attack = load_dataset("digits"), attacks.make("pgd:steps=20,stop=false")
    model = classifier(plain)
    found = cost.measure(Settings([model], data, [attack], parse_epsilons(["0.1"]), draws=10))
    assert found.sweep.backwards == 20 * len(data)
    assert 0 < found.audit.passes < 0.1 * found.sweep.passes
    assert not any(module._forward_pre_hooks for module in model.network.modules())
