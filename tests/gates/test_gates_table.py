"""``gates.csv`` of whole sweeps: what an attack did to the graphs, and controls where it can do nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import attacks
import defenses
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import is_dynamic
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.gates.mediation import CROSSED_DRAWS
from robustbench_aig.models.checkpoints import weights_hash
from robustbench_aig.models.classifier import Classifier
from tests.engine import grids

KEYS = ["gating", "defense", "attack", "attacker", "eps_label"]
UNMOVED = {
    "hamming": 0,
    "hamming_max": 0,
    "hamming_macs": 0,
    "graph_kept": 1,
    "macs_ratio": 1,
    "macs_ratio_p95": 1,
    "macs_ratio_max": 1,
    "recovered_up": 0,
    "recovered_up_pooled": 0,
    "recovered_down": 0,
    "recovered_down_pooled": 0,
    "prototype_moved": 0,
    "mediation_indirect": 0,
    "mediation_interaction": 0,
    "mediation_forwards": 0,
}
"""What every measure says of graphs that did not move."""


def swept(out: Path, **changes: object) -> pd.DataFrame:
    """The table of a sweep, a column per measure."""
    assert not sweep(grids.settings(**changes), out).failed
    table = pd.read_csv(out / "gates.csv", keep_default_na=False, na_values=[""])
    return table.pivot(index=KEYS, columns="measure", values="value")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static and adaptive, with a random defence, at epsilons that move gates and verdicts."""
    out = tmp_path_factory.mktemp("gates") / "run"
    grid = grids.settings(
        epsilons=[Epsilon.of("0.3")],
        defenses=(NO_DEFENSE, defenses.make("resize-pad")),
        attackers=("static", "adaptive"),
        eot=2,
        dataset=load_dataset("digits", limit=60),
    )
    assert not sweep(grid, out).failed
    return out


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "gates.csv", keep_default_na=False, na_values=[""])


def test_every_attacked_row_of_the_summary_has_its_measures(folder: Path, table: pd.DataFrame) -> None:
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False).query("attack != 'none'")
    keys = ["model", "gating", "defense", "attack", "attacker", "norm", "eps", "seed", "cell"]
    counted = table.groupby(keys, sort=False).measure.agg(["count", "nunique"]).reset_index()
    pd.testing.assert_frame_equal(counted[keys], summary[keys].reset_index(drop=True), check_dtype=False)
    assert (counted["count"] == counted["nunique"]).all()
    assert counted["count"].nunique() == 1
    assert "adaptive/deterministic-twin" in set(table.attacker)


def test_measures_agree_with_the_summary(folder: Path, table: pd.DataFrame) -> None:
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False).query("attack != 'none'").set_index(KEYS)
    wide = table.pivot(index=KEYS, columns="measure", values="value").loc[summary.index]
    for measure, column in (
        ("hamming", "flip_rate"),
        ("hamming_null", "flip_rate_null"),
        ("hamming_independent", "flip_rate_independent"),
    ):
        assert wide[measure].to_numpy() == pytest.approx(summary[column].to_numpy())
    assert (wide.hamming_max >= wide.hamming).all()
    fixed = summary.draws == 1
    assert wide.mediation_both[fixed].to_numpy() == pytest.approx(summary.accuracy[fixed].to_numpy())
    assert (wide.mediation_draws == np.minimum(CROSSED_DRAWS, summary.draws)).all()
    total = wide.mediation_neither - wide.mediation_both
    parts = wide.mediation_direct + wide.mediation_indirect + wide.mediation_interaction
    assert parts.to_numpy() == pytest.approx(total.to_numpy())
    assert (wide.hamming > 0).any()
    assert (wide.mediation_forwards <= 2 * wide.mediation_draws).all()


def test_an_accuracy_has_the_interval_that_the_summary_gives_it(folder: Path, table: pd.DataFrame) -> None:
    """Deterministic gates: the attacked accuracy of the mediation table is that of the summary."""
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False).set_index(KEYS)
    rows = table[(table.measure == "mediation_both") & (table.gating == "deterministic") & (table.defense == "none")]
    found = rows.set_index(KEYS)[["value", "lo", "hi"]]
    wanted = summary.loc[found.index, ["accuracy", "lo", "hi"]]
    assert found.to_numpy() == pytest.approx(wanted.to_numpy())


def test_intervals_hold_their_value(table: pd.DataFrame) -> None:
    found = table.dropna(subset=["lo"])
    assert (found.lo <= found.value + 1e-12).all()
    assert (found.value <= found.hi + 1e-12).all()
    assert (found.lo < found.hi).all()
    assert {"hamming", "graph_kept", "mediation_direct", "monitor_auc", "recovered_up"} <= set(found.measure)


def test_samples_hold_what_the_table_counts(folder: Path, table: pd.DataFrame) -> None:
    store = RunFolder(folder)
    wide = table[~table.attacker.str.contains("/")].pivot(
        index=["cell", "eps_label", "gating", "defense"], columns="measure", values="value"
    )
    for (cell, label, gating, defense), row in wide.iterrows():
        samples = store.samples(str(cell)).query(f"eps_label == '{label}'")
        random = gating == "stochastic" or defense != "none"
        draws = 4 if random else 1
        assert (samples.graph_kept / draws).mean() == pytest.approx(row.graph_kept)
        assert (samples.correct_features / row.mediation_draws).mean() == pytest.approx(row.mediation_features)
        assert (samples.correct_gates / row.mediation_draws).mean() == pytest.approx(row.mediation_gates)
        assert (samples.macs_adv / samples.macs_clean).mean() == pytest.approx(row.macs_ratio)
        if not random:
            opened = [np.stack(samples[name].to_list()) for name in ("open_clean", "open_adv")]
            assert (opened[0] != opened[1]).mean() == pytest.approx(row.hamming)
            assert ((samples.prediction_clean == samples.label) == (samples.correct_clean == 1)).all()


def test_crossed_verdicts_are_those_of_forced_graphs(folder: Path) -> None:
    """Recomputed image by image with the public pieces, for every image and not only those that scoring had to run."""
    from robustbench_aig.contracts.policy import Deterministic, Forced

    model = grids.classifier().network
    data = load_dataset("digits", limit=60)
    rows = pd.read_csv(folder / "summary.csv", keep_default_na=False)
    cell = rows.query("gating == 'deterministic' and defense == 'none' and attack == 'fgsm' and attacker == 'static'")
    samples = RunFolder(folder).samples(str(cell.cell.iloc[0])).query("eps_label == '0.3'")
    images = data.images(torch.arange(60))
    with torch.no_grad():
        _, trace = model.traced(images, Deterministic())  # type: ignore[operator]
        before, after = (torch.tensor(np.stack(samples[name].to_list())) for name in ("open_clean", "open_adv"))
        assert torch.equal(trace.open.long(), before.long())
        through = model.traced(images, Forced(after))[0].argmax(1)  # type: ignore[operator]
    assert np.array_equal((through == data.labels).numpy(), samples.correct_gates.to_numpy().astype(bool))


def test_an_attack_that_does_nothing_moves_no_measure(tmp_path: Path) -> None:
    wide = swept(tmp_path, attacks=[attacks.make("identity")], defenses=(NO_DEFENSE, defenses.make("resize-pad")))
    for measure, value in UNMOVED.items():
        assert wide[measure].to_numpy() == pytest.approx(value), measure
    assert wide.monitor_auc.to_numpy() == pytest.approx(0.5)
    assert (wide.mediation_direct == 0).all()
    for name in ("information_{}", "information_{}_null", "information_{}_p", "prototype_true_{}"):
        assert (wide[name.format("clean")] == wide[name.format("adv")]).all()


def test_gates_that_ignore_the_image_show_no_effect_in_any_measure(tmp_path: Path) -> None:
    sighted = grids.classifier()
    for gate in sighted.network.gates:  # type: ignore[union-attr]
        torch.nn.init.zeros_(gate.fc2.weight)
    blind = replace(sighted, weights_hash=weights_hash(sighted.network))
    learners = [attacks.make(name) for name in ("pgd:steps=3", "gates:square:steps=3,restarts=1")]
    wide = swept(
        tmp_path,
        models=[blind],
        attacks=learners,
        defenses=(NO_DEFENSE,),
        epsilons=[Epsilon.of("0.3")],
        dataset=load_dataset("digits", limit=120),
    )
    for measure, value in UNMOVED.items():
        found = wide[measure].dropna()  # nothing can be recovered where every gate is open, or none
        assert found.to_numpy() == pytest.approx(value), measure
    assert (wide.mediation_features == wide.mediation_both).all()
    assert (wide.mediation_gates == wide.mediation_neither).all()
    assert (wide.information_clean_p > 0.05).all()
    assert (wide.information_adv_p == wide.information_clean_p).all()
    fixed = wide.xs("deterministic", level="gating")
    assert fixed.monitor_auc.to_numpy() == pytest.approx(0.5)
    assert (fixed.information_clean == 0).all()
    drawn = pd.read_csv(tmp_path / "gates.csv").query("measure == 'monitor_auc' and gating == 'stochastic'")
    assert (drawn.lo < 0.5).all()
    assert (drawn.hi > 0.5).all()


def test_compute_stays_between_floor_and_ceiling(folder: Path, table: pd.DataFrame) -> None:
    for (cell, defense), _ in table.groupby(["cell", "defense"]):
        side = 8 if defense == "none" else 9  # resize-pad enlarges what the model sees
        network = grids.classifier().network
        assert is_dynamic(network)
        price = network.costs((1, side, side))
        floor, ceiling = (price.extreme(network.layout, sign) for sign in (-1, 1))
        samples = RunFolder(folder).samples(cell)
        for column in ("macs_clean", "macs_adv"):
            assert samples[column].between(floor - 1e-6, ceiling + 1e-6).all()
    most = table[table.measure == "recovered_up"].value.max()
    assert most <= 1
    assert table[table.measure == "recovered_down"].value.max() <= 1


def test_gates_that_only_scale_have_no_mediation(tmp_path: Path) -> None:
    wide = swept(tmp_path, gatings=(Gating("expected"),), defenses=(NO_DEFENSE,))
    assert "mediation_both" not in wide
    assert (wide.hamming >= 0).all()


def test_an_attacker_with_an_image_per_draw_has_no_mediation(tmp_path: Path) -> None:
    wide = swept(tmp_path, gatings=(Gating("stochastic"),), defenses=(NO_DEFENSE,), attackers=("static", "known-noise"))
    measured = wide.notna().groupby("attacker").all()
    assert measured.loc["static", "mediation_both"]
    assert not measured.loc["known-noise", "mediation_both"]
    assert measured.loc["known-noise", "graph_kept"]


def test_a_model_without_gates_has_no_table(tmp_path: Path) -> None:
    resnet: Classifier = grids.classifier("resnet20")
    sweep(grids.settings(models=[resnet], defenses=(NO_DEFENSE,)), tmp_path)
    assert not (tmp_path / "gates.csv").exists()
