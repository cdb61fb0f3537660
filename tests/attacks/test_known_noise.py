"""The attacker who knows the scoring draws, and the number of draws that ``--eot auto`` comes to."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

import attacks
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Passes
from robustbench_aig.data.dataset import ArraySource, Dataset
from robustbench_aig.engine import eot, known_noise
from robustbench_aig.engine.batches import Batch
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.errors import UsageError
from robustbench_aig.models.checkpoints import weights_hash
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.report.headline import worst_cases
from robustbench_aig.report.run import read_run

PGD = "pgd:steps=5,rel_step=0.3"
ONE = {"attacks": [attacks.make("fgsm")], "epsilons": parse_epsilons(["12/255"]), "attackers": ("adaptive",)}


@pytest.fixture
def grid(gated):
    """Settings over the gated network with random gates, as a function of what differs."""
    torch.set_num_threads(1)
    classifier = Classifier("gated", gated.network, 10, weights_hash(gated.network), "gated", gated.network.layout)
    pixels = ArraySource((gated.images * 255).round().to(torch.uint8))
    ids = torch.arange(len(gated.labels))
    data = Dataset("tiny", "test", ids, gated.labels, tuple("0123456789"), {}, (3, 8, 8), pixels)
    base = {
        "models": [classifier],
        "dataset": data,
        "attacks": [attacks.make(PGD)],
        "epsilons": parse_epsilons(["8/255,16/255"]),
        "gatings": (Gating("stochastic"),),
        "draws": 6,
        "eot": 4,
    }
    return lambda **changes: Settings(**base | changes)


def of(settings, attacker):
    return next(cell for cell in plan(settings) if cell.attacker == attacker)


def test_a_known_draw_is_the_draw_that_is_scored(gated):
    fresh = gated.target("stochastic", draws=4)
    for draw in (0, 3):
        known = replace(fresh, known=draw)
        assert not known.stochastic
        scored = replace(fresh, draws=1).view(gated.images, "score", [draw])
        assert torch.equal(known.view(gated.images).logits, scored.logits)
        _, _, view = known.gradient(gated.images, lambda view: view.logits.sum((0, 2)), step=7)
        assert torch.equal(view.trace.open, scored.trace.open)
    assert not torch.equal(replace(fresh, known=0).view(gated.images).logits, scored.logits)


def test_every_draw_is_attacked_and_scored_for_itself(gated, grid):
    cell = of(grid(attackers=("known-noise",)), "known-noise")
    ids = torch.arange(len(gated.images))
    batch = Batch(slice(0, len(ids)), gated.images, gated.labels, ids)
    whole = known_noise.attack(cell, batch, Passes.none(len(ids))).scores.correct
    part = known_noise.attack(replace(cell, draws=2), batch, Passes.none(len(ids))).scores.correct
    assert whole.shape == (6, 2, len(ids))
    assert (part == whole[:2]).all()
    clean = score_cell(cell, gated.images, gated.labels, ids)
    assert (whole[:, 0] <= clean.correct).all()


def test_it_is_ahead_of_fresh_noise_and_in_no_worst_case(grid, tmp_path):
    sweep(grid(attackers=("adaptive", "known-noise")), tmp_path)
    summary = pd.read_csv(tmp_path / "summary.csv").query("eps > 0").set_index("eps_label")
    adaptive, known = (summary.query(f"attacker == '{name}'").accuracy for name in ("adaptive", "known-noise"))
    assert (known <= adaptive).all()
    assert (known < adaptive).any()
    run = read_run(tmp_path)
    assert {curve.attacker for curve in run.curves} == {"adaptive", "known-noise"}
    assert [entry.found.value for entry in worst_cases(run)] == adaptive.tolist()
    assert next(entry.verdict for entry in run.audit if entry.id == "R7") == "PASS"


def test_it_is_planned_only_where_something_is_random(grid):
    gatings = (Gating("stochastic"), Gating("deterministic"))
    cells = plan(grid(gatings=gatings, attackers=("static", "known-noise")))
    assert [cell.gating.kind for cell in cells if cell.attacker == "known-noise"] == ["stochastic"]
    with pytest.raises(UsageError, match="nothing in this grid is random"):
        plan(grid(gatings=gatings[1:], attackers=("known-noise",)))


@pytest.mark.parametrize("name", ["torchattacks:PGD", "gates:open"])
def test_attacks_that_cannot_follow_the_noise_are_refused(grid, name):
    with pytest.raises(UsageError, match="noise"):
        plan(grid(attacks=[attacks.make(name)], attackers=("known-noise",)))


def test_auto_is_part_of_the_identity_and_its_choice_of_the_result(grid, tmp_path):
    settings = grid(eot="auto", **ONE)
    cell = of(settings, "adaptive")
    assert cell.identity["eot"] == "auto"
    assert replace(cell, chosen=32).id == cell.id
    sweep(settings, tmp_path)
    result = json.loads((tmp_path / "cells" / cell.id / "result.json").read_text())
    found = result["eot_auto"]
    assert result["eot"] == found["draws"] == result["rows"][0]["eot"]
    assert [trial["draws"] for trial in found["trials"]] == [8 * 2**k for k in range(len(found["trials"]))]
    assert found["forwards"] > 0
    fixed = sweep(grid(eot=found["draws"], **ONE), tmp_path / "fixed")
    assert fixed.done == 2
    same, other = (
        pd.read_csv(folder / "summary.csv").drop(columns="cell") for folder in (tmp_path, tmp_path / "fixed")
    )
    assert same.equals(other)


def test_auto_doubles_until_gradients_agree_whatever_the_batch_size(grid):
    cell = of(grid(eot="auto", **ONE), "adaptive")
    device = torch.device("cpu")
    found, again = (eot.settle(cell, device, size) for size in (250, 40))
    assert found.draws == again.draws
    cosines = [trial.cosine for trial in found.trials]
    assert found.converged == (cosines[-1] >= eot.COSINE)
    assert all(cosine < eot.COSINE for cosine in cosines[:-1])
    assert cosines == pytest.approx([trial.cosine for trial in again.trials], abs=1e-4)
    assert cosines == sorted(cosines)


def test_auto_stops_at_its_limit(grid, monkeypatch):
    monkeypatch.setattr(eot, "COSINE", 1.1)
    found = eot.settle(of(grid(eot="auto", **ONE), "adaptive"), torch.device("cpu"), 250)
    assert (found.draws, found.converged) == (eot.MOST_DRAWS, False)
    assert all(trial.accuracy is None for trial in found.trials)
