import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from robustbench_aig.errors import UserError
from robustbench_aig.report import compare_runs, read_run
from robustbench_aig.report.compare import statements
from tests.report.runs import Population, grid, write


def cells(model: str, strength: float, gating: str = "none", attacker: str = "static") -> list[dict[str, Any]]:
    common = {"model": model, "gating": gating, "defense": "none"}
    return [
        {**common, "attack": "none", "attacker": "none", "strength": 0.0},
        {**common, "attack": "fgsm", "attacker": attacker, "strength": strength},
    ]


def only(compared: dict[str, Any]) -> dict[str, Any]:
    (pair,) = compared["comparisons"]
    return pair  # type: ignore[no-any-return]


def test_a_better_model_is_better_at_every_epsilon(tmp_path: Path) -> None:
    run = write(tmp_path / "run", Population(300, 1, (2, 4, 8)), cells("weak", 1.0) + cells("strong", 0.4))
    pair = only(compare_runs([run]))
    assert (pair["a"], pair["b"], pair["images"]) == ("weak", "strong", 300)
    assert [(s["scope"], s["better"]) for s in pair["statements"]] == [("every", "strong")]
    clean, *attacked = pair["rows"]
    assert clean["difference"] == 0
    assert clean["p_holm"] is None
    for row in attacked:
        assert row["test"] == "mcnemar-exact"
        assert row["lo"] <= row["difference"] <= row["hi"] < 0
        assert row["difference"] == pytest.approx(row["a"] - row["b"])
        assert row["p_value"] <= row["p_holm"] < 0.05


def test_some_epsilon_is_not_every_epsilon(tmp_path: Path) -> None:
    # At 100/255 neither model classifies anything correctly.
    run = write(tmp_path / "run", Population(300, 1, (4, 100)), cells("weak", 1.0) + cells("strong", 0.4))
    (statement,) = only(compare_runs([run]))["statements"]
    assert (statement["scope"], statement["better"], statement["epsilons"]) == ("some", "strong", ["4/255"])
    assert "not shown at every one" in statement["sentence"]


def test_statements_are_corrected_as_they_need_to_be() -> None:
    """Every epsilon: the largest p-value (Berger 1982). Some: Holm's, by hand 0.03, 0.06, 0.06, 0.02."""
    labels, apart = ["1", "2", "3", "4"], np.ones(4)
    for p, wanted in (
        ([0.01, 0.02, 0.025, 0.005], ("every", "a", 0.025, labels)),
        ([0.004, 0.2, 0.3, 0.001], ("some", "a", 0.004, ["1", "4"])),
        ([0.03, 0.5, 0.9, 0.4], ("none", None, None, [])),
    ):
        (found,) = statements(("a", "b"), "accuracy", labels, np.array([p, apart]))
        assert (found["scope"], found["better"], found["p_value"], found["epsilons"]) == wanted


def test_equal_models_are_not_told_apart(tmp_path: Path) -> None:
    run = write(tmp_path / "run", Population(150, 1, (2, 4, 8)), cells("one", 0.5) + cells("two", 0.5))
    (statement,) = only(compare_runs([run]))["statements"]
    assert (statement["scope"], statement["better"], statement["p_value"]) == ("none", None, None)


def test_random_models_are_compared_by_shares(tmp_path: Path) -> None:
    both = cells("plain", 1.0) + cells("gated", 0.4, "stochastic")
    pair = only(compare_runs([write(tmp_path / "run", Population(200, 10, (4, 8)), both)]))
    assert pair["b"] == "gated · stochastic"
    assert {row["test"] for row in pair["rows"]} == {"sign-flip"}
    assert pair["statements"][0]["better"] == "gated · stochastic"


def test_two_runs_of_one_model_are_named_by_their_run_and_cut_to_common_images(tmp_path: Path) -> None:
    first = write(tmp_path / "first", Population(120, 1, (4, 8)), cells("net", 0.5))
    second = write(tmp_path / "second", Population(80, 1, (4, 16)), cells("net", 0.5))
    pair = only(compare_runs([first, second]))
    assert (pair["a"], pair["b"], pair["images"]) == ("net (first)", "net (second)", 80)
    assert [row["eps_label"] for row in pair["rows"]] == ["0", "4/255"]


def test_pairs_share_everything_but_the_model(run_folder: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    compared = compare_runs([run_folder], console)
    assert len(compared["comparisons"]) == 3 * 2 * 2
    for pair in compared["comparisons"]:
        assert pair["a"] != pair["b"]
        assert (pair["attack"], pair["attacker"]) in {("fgsm", "static"), ("pgd:steps=20", "adaptive")}
    json.dumps(compared, allow_nan=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(" against ") == 12
    assert all(s["sentence"][:40] in text for pair in compared["comparisons"] for s in pair["statements"])


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    run = write(tmp_path / "run", Population(40, 1, (4,)), cells("a", 1.0) + cells("b", 1.0, attacker="adaptive"))
    with pytest.raises(UserError, match="nothing to compare"):
        compare_runs([run])
    other = write(tmp_path / "other", Population(40, 1, (8,)), cells("c", 1.0))
    with pytest.raises(UserError, match="nothing to compare"):
        compare_runs([run, other])


def test_attacks_of_one_name_with_other_parameters_are_not_mixed(tmp_path: Path) -> None:
    population = Population(60, 1, (4, 8))
    more = [{**cell, "steps": 40} for cell in cells("a", 1.5)[1:]]
    run = write(tmp_path / "run", population, cells("a", 1.0) + cells("b", 0.5) + more)
    assert [len(curve.rows) for curve in read_run(run).curves] == [3, 3, 3]
    assert only(compare_runs([run]))["b"] == "b"
    other = write(tmp_path / "other", population, [{**cell, "steps": 40} for cell in cells("b", 0.5)])
    with pytest.raises(UserError, match="nothing to compare"):
        compare_runs([write(tmp_path / "first", population, cells("a", 1.0)), other])


def test_comparison_does_not_depend_on_the_order(tmp_path: Path) -> None:
    population = Population(100, 10, (4, 8))
    x, y = cells("x", 0.9, "stochastic"), cells("y", 0.5, "stochastic")
    first = write(tmp_path / "first", population, x)
    second = write(tmp_path / "second", population, y)
    forward, backward = only(compare_runs([first, second])), only(compare_runs([second, first]))
    for a, b in zip(forward["rows"], backward["rows"], strict=True):
        assert a["difference"] == pytest.approx(-b["difference"])
        assert a["p_value"] == b["p_value"]


def test_grid_fixture_is_complete() -> None:
    assert len(list(grid())) == 18
