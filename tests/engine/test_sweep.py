"""The sweep engine: resume after a kill, independence of the batch size, passes, and what its rows say."""

import errno
import itertools
import json
import multiprocessing
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attacks
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import plan
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.errors import UserError
from tests.engine import grids

TABLES = ("summary.csv", "execution.csv", "gates.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "run"
    grids.run(out)
    return out


@pytest.fixture(scope="module")
def summary(finished: Path) -> pd.DataFrame:
    return pd.read_csv(finished / "summary.csv", keep_default_na=False, na_values=[""])


def test_killed_at_random_moments_it_resumes_to_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.engine.grids"])
    chance = random.Random(0)
    started = time.monotonic()
    for warm in ("first", "second"):  # the second run does not wait for the fork server to import torch
        started = time.monotonic()
        process = context.Process(target=grids.run, args=(tmp_path / warm,))
        process.start()
        process.join()
    duration = time.monotonic() - started
    kills = rounds = 0
    while kills < 10:
        out = tmp_path / f"round{rounds}"
        rounds += 1
        for _ in range(100):
            process = context.Process(target=grids.run, args=(out,))
            process.start()
            process.join(chance.uniform(0, duration))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            kills += 1
        else:
            pytest.fail("the sweep makes no progress between kills")
        for table in TABLES:
            assert (out / table).read_bytes() == (finished / table).read_bytes()
        assert not list(out.rglob(".*-*"))


def test_a_second_run_computes_nothing(finished: Path) -> None:
    before = {table: (finished / table).read_bytes() for table in TABLES}
    done = grids.run(finished)
    assert (done.done, done.skipped, done.failed) == (0, 12 - 4, {})
    assert before == {table: (finished / table).read_bytes() for table in TABLES}


def test_verdicts_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    counts = []
    for size in (1, 7, 256):
        sweep(grids.settings(batch_size=size), tmp_path / str(size))
        folder = RunFolder(tmp_path / str(size))
        counts.append(np.concatenate([folder.samples(cell)["correct"].to_numpy() for cell in folder.finished()]))
    for other in counts[1:]:
        assert (other == counts[0]).mean() >= 0.999


@pytest.mark.parametrize(("growth", "times"), [(0, 0), (1, 7)])
def test_memory_goes_back_where_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growth: int, times: int
) -> None:
    """40 images in threes are 14 batches: six grow into what is needed, and each of the last seven beyond it."""
    engine, calls, held = "robustbench_aig.engine.sweep", [], itertools.count(100, 10 * growth)
    monkeypatch.setattr(f"{engine}.WARM", 6)
    monkeypatch.setattr(f"{engine}.resident_memory", lambda: next(held))
    monkeypatch.setattr(f"{engine}.give_back_memory", lambda: calls.append(1))
    grid = grids.settings(
        gatings=(Gating("deterministic"),), attackers=("static",), defenses=(NO_DEFENSE,), batch_size=3
    )
    sweep(replace(grid, attacks=[]), tmp_path / "run")
    assert len(calls) == times


def test_rows_follow_the_schema(summary: pd.DataFrame) -> None:
    clean = summary[summary.attack == "none"]
    assert len(clean) == 4
    assert (clean.eps == 0).all()
    assert (summary.lo <= summary.accuracy).all()
    assert (summary.accuracy <= summary.hi).all()
    assert (summary[summary.gating == "deterministic"].draws == 1).all()
    assert (summary[summary.gating == "stochastic"].draws == 4).all()
    for column in ("accuracy", "vote_accuracy", "worst_accuracy", "exec_rate_clean", "exec_rate_adv", "flip_rate"):
        assert summary[column].between(0, 1).all()


def test_fgsm_costs_one_gradient_for_all_epsilons(summary: pd.DataFrame) -> None:
    attacked = summary[summary.attack == "fgsm"]
    assert (attacked.forwards_per_image == 1).all()
    assert (attacked.backwards_per_image == 1).all()


def test_summary_and_execution_come_from_the_samples(finished: Path, summary: pd.DataFrame) -> None:
    folder = RunFolder(finished)
    execution = pd.read_csv(finished / "execution.csv")
    for row in summary[summary.attack == "fgsm"].itertuples():
        samples = folder.samples(row.cell).query(f"eps == {row.eps}")
        assert row.accuracy == pytest.approx((samples.correct / row.draws).mean())
        opened = np.stack(samples.open_adv.to_list()) / row.draws
        assert row.exec_rate_adv == pytest.approx(opened.mean())
        layers = execution.query(
            f"gating == '{row.gating}' and defense == '{row.defense}' and eps == {row.eps} and group == 'all'"
        )
        assert layers.rate_adv.to_numpy() == pytest.approx(opened.mean(0))
        flips = np.stack(samples.flips.to_list()) / row.draws
        assert layers.flip_rate.to_numpy() == pytest.approx(flips.mean(0))
        assert row.flip_rate == pytest.approx(flips.mean())
        assert (samples.linf <= row.eps + 1e-6).all()


def test_execution_has_classes_and_categories(finished: Path) -> None:
    groups = set(pd.read_csv(finished / "execution.csv").group.astype(str))
    assert {"all", "even", "odd", "0", "9"} <= groups


def test_deterministic_gates_have_no_null_flips(summary: pd.DataFrame) -> None:
    assert (summary[summary.gating == "deterministic"].flip_rate_null == 0).all()
    assert (summary[summary.gating == "stochastic"].flip_rate_null > 0).all()


def test_identity_attack_changes_nothing(tmp_path: Path) -> None:
    """The null control: an attack that returns its input, through the whole protocol of stochastic gates."""
    sweep(grids.settings(attacks=[attacks.make("identity")], attackers=("static", "adaptive")), tmp_path)
    rows = pd.read_csv(tmp_path / "summary.csv")
    for _, group in rows.groupby(["gating", "defense"]):
        for column in ("accuracy", "vote_accuracy", "worst_accuracy", "exec_rate_adv", "macs_adv"):
            assert group[column].nunique() == 1
    assert (rows.flip_rate == 0).all()


def test_adaptive_is_no_weaker_than_any_of_its_paths_where_nothing_is_random(tmp_path: Path) -> None:
    grid = grids.settings(gatings=(Gating("deterministic"),), attackers=("static", "adaptive"))
    sweep(grid, tmp_path)
    rows = pd.read_csv(tmp_path / "summary.csv").query("attack == 'fgsm'")
    for _, group in rows.groupby(["defense", "eps"]):
        adaptive = group[group.attacker == "adaptive"].accuracy.item()
        assert adaptive == group.accuracy.min()
    assert {"adaptive/soft", "adaptive/identity", "adaptive/static"} <= set(rows.attacker)


def test_models_without_gates_have_one_gating_and_empty_gate_columns(tmp_path: Path) -> None:
    sweep(grids.settings(models=[grids.classifier("resnet20")]), tmp_path)
    rows = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert set(rows.gating) == {"none"}
    assert set(rows.exec_rate_adv) == {""}
    assert not (tmp_path / "execution.csv").exists()


def test_a_failing_cell_leaves_the_others(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no such layer")

    broken = replace(grids.classifier("resnet20"), name="broken", network=Broken())
    done = sweep(grids.settings(models=[broken, grids.classifier()], defenses=(NO_DEFENSE,)), tmp_path)
    assert len(done.failed) == 2
    assert all("no such layer" in text for text in done.failed.values())
    assert done.done == 4
    assert json.loads((tmp_path / "run.json").read_text())["failed"] == done.failed


def test_foreign_and_shared_folders_are_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no run of this suite"):
        grids.run(tmp_path)
    with pytest.raises(UserError, match="another sweep"):
        sweep(grids.settings(draws=2), finished)
    with RunFolder(finished).locked(), pytest.raises(UserError, match="another process"):
        grids.run(finished)


@pytest.mark.parametrize("name", ["run.json", "summary.csv"])
def test_files_that_a_killed_process_had_not_named_are_in_nobodys_way(tmp_path: Path, name: str) -> None:
    (tmp_path / f".{name}-1a2b3c4d").touch()
    grids.run(tmp_path)
    assert (tmp_path / name).exists()
    assert not list(tmp_path.glob(".*-*"))


def test_a_larger_grid_adds_to_a_finished_one(tmp_path: Path) -> None:
    sweep(grids.settings(defenses=(NO_DEFENSE,)), tmp_path)
    done = sweep(grids.settings(), tmp_path)
    assert done.skipped == 4
    assert done.done == 4


def test_identity_follows_what_changes_numbers_and_nothing_else() -> None:
    def ids(**changes: object) -> list[str]:
        return [cell.id for cell in plan(grids.settings(**changes))]

    reference = ids()
    assert ids(batch_size=3, device=torch.device("cpu")) == reference
    for changed in (
        {"seeds": (1,)},
        {"models": [grids.classifier(seed=1)]},
        {"gatings": (Gating("deterministic", 0.3), Gating("expected"))},
    ):
        assert not set(ids(**changed)) & set(reference)
    for changed in ({"epsilons": [Epsilon.of("0.05")]}, {"attacks": [attacks.make("fgsm:loss=margin")]}):
        assert set(ids(**changed)) & set(reference) == {
            cell.id for cell in plan(grids.settings()) if cell.attack is None
        }


def test_attacks_that_learn_get_images_that_are_not_attacked(tmp_path: Path) -> None:
    from robustbench_aig.errors import UsageError

    learner = attacks.make("gates:universal:steps=2,restarts=1")
    grid = {
        "attacks": [learner],
        "gatings": (Gating("deterministic"),),
        "defenses": (NO_DEFENSE,),
        "attackers": ("static",),
    }
    with pytest.raises(UsageError, match="reference images"):
        plan(grids.settings(**grid))
    reference = load_dataset("digits", split="validation", limit=20)
    done = sweep(grids.settings(**grid, reference=reference), tmp_path)
    assert not done.failed
    rows = pd.read_csv(tmp_path / "summary.csv").query("attack != 'none'")
    assert (rows.exec_rate_adv > rows.exec_rate_clean).all()


def test_a_full_disk_is_one_sentence_and_loses_no_finished_cell(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    sync = os.fsync

    def full(handle: int) -> None:
        written.append("file")
        if len(written) > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="free some space"):
            grids.run(tmp_path)
    kept = RunFolder(tmp_path).finished()
    assert kept
    assert grids.run(tmp_path).skipped == len(kept)
    for table in TABLES:
        assert (tmp_path / table).read_bytes() == (finished / table).read_bytes()


def test_a_cells_numbers_do_not_depend_on_the_other_cells(tmp_path: Path) -> None:
    """The static attacker shares its work between defences only where that changes nothing."""
    grid = {
        "attacks": [attacks.make("pgd:steps=4")],
        "attackers": ("static",),
        "models": [grids.classifier("resnet20")],
    }
    defended = grids.settings().defenses[1]
    sweep(grids.settings(**grid), tmp_path / "both")
    both = pd.read_csv(tmp_path / "both" / "summary.csv")
    for name, defense in (("none", NO_DEFENSE), ("jpeg:75", defended)):
        sweep(grids.settings(**grid, defenses=(defense,)), tmp_path / name)
        alone = pd.read_csv(tmp_path / name / "summary.csv")
        pd.testing.assert_frame_equal(alone, both[both.defense == name].reset_index(drop=True), check_dtype=False)
