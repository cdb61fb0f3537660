"""What a sweep plans for grids of plain and dynamic models, which cells share a crafting, and what an interrupted one
leaves."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from torch import Tensor

import attacks
import defenses
from attacks.fgsm import FGSM
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Target
from robustbench_aig.engine.jobs import jobs
from robustbench_aig.engine.plan import plan
from robustbench_aig.engine.sweep import sweep
from robustbench_aig.errors import UsageError
from robustbench_aig.progress import Silent
from robustbench_aig.report import read_run
from tests.engine import grids


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_an_attack_on_decisions_meets_the_dynamic_models_alone(tmp_path: Path) -> None:
    both = [grids.classifier("resnet20"), grids.classifier()]
    grid = grids.settings(
        models=both,
        attacks=[attacks.make("fgsm"), attacks.make("gates:open:steps=1,restarts=1")],
        gatings=(Gating("deterministic"),),
        defenses=(NO_DEFENSE,),
    )
    progress = Notes()
    assert not sweep(grid, tmp_path, progress=progress).failed
    (note,) = [text for text in progress.told if "left out" in text]
    assert "gates:open" in note
    assert "resnet20" in note
    assert json.loads((tmp_path / "run.json").read_text())["notes"] == [note]
    table = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert set(table[table.attack.str.startswith("gates:")].model) == {"aig20"}
    assert set(table[table.attack == "fgsm"].model) == {"aig20", "resnet20"}
    run = read_run(tmp_path)
    assert run.notes == [note]
    with pytest.raises(UsageError, match="aims at decisions, but resnet20 makes none"):
        plan(grids.settings(models=both[:1], attacks=grid.attacks))


def test_a_grid_without_anything_to_leave_out_has_no_note(tmp_path: Path) -> None:
    progress = Notes()
    sweep(
        grids.settings(attacks=[], defenses=(NO_DEFENSE,), gatings=(Gating("deterministic"),)),
        tmp_path,
        progress=progress,
    )
    assert progress.told == []


def test_cells_share_a_crafting_whatever_their_order() -> None:
    grid = grids.settings(
        attacks=[attacks.make("fgsm"), attacks.make("pgd:steps=2")],
        gatings=(Gating("deterministic"),),
        attackers=("static", "adaptive"),
        defenses=(NO_DEFENSE, defenses.make("jpeg:75"), defenses.make("bitdepth:4")),
    )
    cells = plan(grid)
    shared = {frozenset(cell.id for cell in job) for job in jobs(cells)}
    random.Random(0).shuffle(cells)
    assert {frozenset(cell.id for cell in job) for job in jobs(cells)} == shared
    for job in jobs(cells):
        assert len({(cell.attack, cell.attacker) for cell in job}) == 1
    sizes = {(job[0].columns["attack"], job[0].attacker, len(job)) for job in jobs(cells)}
    assert sizes == {
        ("none", "none", 3),
        ("fgsm", "static", 3),  # one step does not depend on what comes after it
        ("fgsm", "adaptive", 1),
        ("pgd:steps=2", "static", 1),  # stops where the bare model is fooled, if that is what is scored
        ("pgd:steps=2", "static", 2),
        ("pgd:steps=2", "adaptive", 1),
    }


class Interrupted(FGSM):
    """Ctrl-C in the middle of the attack."""

    name = "interrupted"

    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        raise KeyboardInterrupt


def test_what_is_finished_can_be_read_after_an_interruption(tmp_path: Path) -> None:
    grid = grids.settings(attacks=[FGSM(), Interrupted()], gatings=(Gating("deterministic"),), defenses=(NO_DEFENSE,))
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, tmp_path)
    table = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert list(table.attack) == ["none", "fgsm", "fgsm"]
    run = read_run(tmp_path)
    assert run.unfinished == 1
    for name in ("summary", "execution", "gates"):
        (tmp_path / f"{name}.csv").unlink()  # as after a kill, which writes no tables
    pd.testing.assert_frame_equal(read_run(tmp_path).summary, run.summary)
