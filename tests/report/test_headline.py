import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robustbench_aig.report import read_run
from robustbench_aig.report.headline import headlines, worst_cases
from tests.report.runs import Population, grid, write


def test_headlines_are_at_the_common_epsilon_and_call_the_number_a_bound(run_folder: Path) -> None:
    found = headlines(read_run(run_folder))
    assert len(found) == 6
    for entry in found:
        assert entry.row["eps_label"] == "8/255"
        assert entry.robust
        assert entry.claim.startswith("robust accuracy ≤ ")
        assert "worst of 2 attacks" in entry.circumstances
        assert entry.found.lo <= entry.found.value <= entry.found.hi


def test_deterministic_worst_case_is_per_image_over_attacks_and_smaller_budgets(run_folder: Path) -> None:
    run = read_run(run_folder)
    entry = next(e for e in worst_cases(run) if e.contestant == "resnet20" and e.row["eps_label"] == "4/255")
    curves = [c for c in run.curves if c.model == "resnet20" and c.defense == "none"]
    survived = [
        all(run.counts(curve).loc[label, image] for curve in curves for label in ("0", "2/255", "4/255"))
        for image in range(150)
    ]
    assert entry.found.value == pytest.approx(sum(survived) / 150)
    assert entry.found.value <= entry.row["accuracy"]


def test_worst_case_of_random_gates_is_the_lowest_row(run_folder: Path) -> None:
    run = read_run(run_folder)
    rows = run.summary[(run.summary["gating"] == "stochastic") & (run.summary["defense"] == "jpeg:75")]
    for entry in worst_cases(run):
        if entry.row["gating"] == "stochastic" and entry.row["defense"] == "jpeg:75":
            assert entry.found.value == rows[rows["eps_label"] == entry.row["eps_label"]]["accuracy"].min()


@pytest.mark.parametrize(
    ("attack", "attacker", "bounds"),
    [
        ("fgsm", "static", set()),
        ("fgsm:loss=margin", "adaptive", set()),
        ("torchattacks:FGSM", "adaptive", set()),
        ("pgd:steps=20", "static", {("none", "none"), ("deterministic", "none")}),
        (
            "pgd:steps=20",
            "adaptive",
            {(g, d) for g in ("none", "stochastic", "deterministic") for d in ("none", "jpeg:75")},
        ),
    ],
)
def test_only_suitable_attacks_make_a_bound(
    tmp_path: Path, attack: str, attacker: str, bounds: set[tuple[str, str]]
) -> None:
    cells = [cell for cell in grid() if cell["attack"] != "fgsm"]
    for cell in cells:
        if cell["attack"] != "none":
            cell.update(attack=attack, attacker=attacker)
    found = headlines(read_run(write(tmp_path / "run", Population(40, 5, (4,)), cells)))
    assert {(entry.row["gating"], entry.row["defense"]) for entry in found if entry.robust} == bounds
    assert all(entry.claim.startswith("robust accuracy ≤") == entry.robust for entry in found)


def with_aim(aim: str, attack: str = "gates:open") -> list[dict[str, Any]]:
    """The cells of a gated model, its strong attack being one with another aim."""
    cells = [cell for cell in grid() if cell["gating"] == "stochastic" and cell["defense"] == "none"]
    return [cell | ({"attack": attack, "aims_at": aim} if cell["attack"].startswith("pgd") else {}) for cell in cells]


@pytest.mark.parametrize(("aim", "words"), [("compute", "multiply-adds "), ("gates", "decisions flipped ")])
def test_attacks_with_another_aim_say_what_they_did_to_it(tmp_path: Path, aim: str, words: str) -> None:
    run = read_run(write(tmp_path / "run", Population(40, 5, (4, 8)), with_aim(aim)))
    robust, other = headlines(run)
    assert (robust.aim, robust.row["attack"], robust.attacks) == ("class", "fgsm", 1)
    assert (other.aim, other.row["attack"]) == (aim, "gates:open")
    assert other.claim.startswith(words)
    assert not other.robust
    assert {entry.row["attack"] for entry in worst_cases(run)} == {"fgsm"}


def test_a_control_has_no_headline(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "run", Population(40, 5, (8,)), with_aim("nothing", "identity")))
    assert [entry.row["attack"] for entry in headlines(run)] == ["fgsm"]


def test_attackers_and_seeds_are_no_attacks(tmp_path: Path) -> None:
    cells = [cell for cell in grid() if cell["gating"] == "deterministic" and cell["defense"] == "none"]
    again = [{**cell, "attacker": "adaptive"} for cell in cells if cell["attack"] == "fgsm"]
    run = read_run(write(tmp_path / "run", Population(40, 1, (8,)), cells + again))
    (entry,) = headlines(run)
    assert entry.attacks == 2
    summary = pd.concat([run.summary, run.summary[run.summary["attack"] == "fgsm"].assign(seed=1)])
    assert {case.attacks for case in worst_cases(replace(run, summary=summary))} == {2}


def test_a_budget_under_another_label_is_the_same_budget(run_folder: Path, tmp_path: Path) -> None:
    """Runs of older versions keep the label that the user wrote: ``16/510`` is 8/255."""
    renamed = tmp_path / "renamed"
    shutil.copytree(run_folder, renamed)
    table = (renamed / "summary.csv").read_text().replace("8/255", "16/510")
    (renamed / "summary.csv").write_text(table)
    for file in renamed.glob("cells/*/samples.parquet"):
        samples = pd.read_parquet(file)
        samples["eps_label"] = samples["eps_label"].replace("8/255", "16/510")
        samples.to_parquet(file)
    plain, other = headlines(read_run(run_folder)), headlines(read_run(renamed))
    assert [entry.found for entry in other] == [entry.found for entry in plain]
    assert {entry.row["eps_label"] for entry in other} == {"16/510"}
