import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from robustbench_aig.errors import UsageError, UserError
from robustbench_aig.report import compare_attacks, read_run
from robustbench_aig.report.compare import MEASURES
from tests.report.runs import Population, write

ATTACKS = {"fgsm": 0.4, "pgd:steps=20": 0.4, "pgd:steps=40": 1.3}


def cells(gating: str, attacks: dict[str, float] = ATTACKS) -> list[dict[str, Any]]:
    common = {"model": "aig20", "gating": gating, "defense": "none"}
    clean = {**common, "attack": "none", "attacker": "none", "strength": 0.0}
    return [clean, *({**common, "attack": a, "attacker": "static", "strength": s} for a, s in attacks.items())]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "run", Population(200, 10, (2, 8)), cells("stochastic"))


def test_the_first_attack_is_held_against_every_other_at_every_epsilon(run: Path) -> None:
    weak, strong = compare_attacks(run, "accuracy")["comparisons"]
    assert [(pair["a"], pair["b"]) for pair in (weak, strong)] == [("fgsm", "pgd:steps=20"), ("fgsm", "pgd:steps=40")]
    assert [row["eps_label"] for row in strong["rows"]] == ["2/255", "8/255"]
    assert all(row["lo"] <= 0.05 for row in weak["rows"])
    for row in strong["rows"]:
        assert 0 < row["lo"] <= row["difference"] <= row["hi"]
        assert row["difference"] == pytest.approx(row["a"] - row["b"])
        assert row["p_value"] <= row["p_holm"] < 0.05
    assert [(entry["scope"], entry["better"]) for entry in strong["statements"]] == [("every", "fgsm")]


@pytest.mark.parametrize("measure", list(MEASURES))
def test_means_are_those_of_the_samples(run: Path, measure: str) -> None:
    pair = compare_attacks(run, measure, ["steps=40", "fgsm"])["comparisons"][0]
    loaded = read_run(run)
    table = loaded.summary.query("attack == 'pgd:steps=40' and eps_label == '2/255'").iloc[0]
    seen = loaded.samples(table["cell"]).query("eps_label == '2/255'")
    expected = {
        "accuracy": table["accuracy"],
        "macs": table["macs_adv"],
        "executed": table["exec_rate_adv"],
        "flips": np.stack(seen["flips"].to_list()).mean() / 10,
        "kept": seen["graph_kept"].mean() / 10,
        "features": seen["correct_features"].mean() / 2,
        "gates": seen["correct_gates"].mean() / 2,
    }
    assert pair["rows"][0]["a"] == pytest.approx(expected[measure])
    assert (pair["a"], pair["b"]) == ("pgd:steps=40", "fgsm")


def test_swapping_two_attacks_swaps_the_interval(run: Path) -> None:
    names = (["fgsm", "40"], ["40", "fgsm"])
    one, other = (compare_attacks(run, "macs", pair)["comparisons"][0]["rows"][0] for pair in names)
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["lo"] < one["difference"] < one["hi"]
    assert one["p_value"] == other["p_value"]


def test_the_table_names_both_and_their_passes(run: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    compare_attacks(run, "macs", ["fgsm", "pgd"], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fgsm against pgd:steps=40: macs" in text
    assert "2 and 2 passes per image" in text
    assert "25.8 M" in text or " M " in text


@pytest.mark.parametrize(
    ("measure", "attacks", "text"),
    [
        ("speed", [], "unknown measure 'speed'"),
        ("accuracy", ["apgd"], "unknown attack of the run 'apgd'"),
        ("accuracy", ["pgd"], "fits 2 attacks of the run"),
    ],
)
def test_what_a_run_has_not_is_one_sentence(run: Path, measure: str, attacks: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        compare_attacks(run, measure, attacks)


def test_one_attack_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than two attacks"):
        compare_attacks(write(tmp_path / "run", Population(20, 1, (2,)), cells("none", {"fgsm": 1.0})), "accuracy")


def test_gates_are_not_measured_where_there_are_none(tmp_path: Path) -> None:
    run = write(tmp_path / "run", Population(20, 1, (2,)), cells("none"))
    with pytest.raises(UserError, match="measure accuracy there"):
        compare_attacks(run, "macs")
