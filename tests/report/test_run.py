import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_aig.errors import Prerequisite, UserError
from robustbench_aig.report import describe_run, read_run


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "copy"))


def test_every_curve_starts_at_its_own_clean_row(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert len(run.curves) == 12
    for curve in run.curves:
        assert list(curve.rows["eps_label"]) == ["0", "2/255", "4/255", "8/255", "16/255"]
        clean = curve.rows.iloc[0]
        assert clean["attack"] == "none"
        assert (clean["gating"], clean["defense"]) == (curve.gating, curve.defense)
    assert run.curves[0].contestant == "resnet20"
    assert run.curves[-1].contestant == "aig20 · deterministic"


def test_samples_reproduce_the_accuracies_of_the_table(run_folder: Path) -> None:
    run = read_run(run_folder)
    for curve in run.curves:
        shares = run.shares(curve)
        assert shares.shape == (5, 150)
        np.testing.assert_allclose(shares.mean(axis=1), curve.rows["accuracy"], atol=1e-9)


def test_names_that_look_like_missing_values_are_names(copy: Path) -> None:
    table = pd.read_csv(copy / "execution.csv", keep_default_na=False)
    table["group"] = table["group"].replace("bird", "null")
    table.to_csv(copy / "execution.csv", index=False)
    assert "null" in set(read_run(copy).execution["group"])


def test_single_gradient_paths_are_kept_apart(copy: Path) -> None:
    table = pd.read_csv(copy / "summary.csv", keep_default_na=False)
    path = table[table["attacker"] == "adaptive"].assign(attacker="adaptive/identity")
    pd.concat([table, path]).to_csv(copy / "summary.csv", index=False)
    run = read_run(copy)
    assert {curve.attacker for curve in run.curves} == {"static", "adaptive"}
    assert [curve.attacker for curve in run.paths] == ["adaptive/identity"] * 6


def test_number_of_classes_is_known_only_when_all_are_there(copy: Path) -> None:
    assert read_run(copy).classes == 5
    file = copy / "cells" / ("0" * 12) / "samples.parquet"
    samples = pd.read_parquet(file)
    samples[samples["label"] != 1].to_parquet(file)
    assert read_run(copy).classes is None


def test_missing_folder_is_a_prerequisite(tmp_path: Path) -> None:
    with pytest.raises(Prerequisite, match="no run folder"):
        read_run(tmp_path / "nowhere")


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sea")
    with pytest.raises(UserError, match="no run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}'])
def test_damaged_run_json_is_refused(copy: Path, content: str) -> None:
    (copy / "run.json").write_text(content)
    with pytest.raises(UserError, match="cannot read"):
        read_run(copy)


def test_other_schema_is_refused(copy: Path) -> None:
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**document, "schema": 99}))
    with pytest.raises(UserError, match="schema 99"):
        read_run(copy)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_run_without_a_finished_cell_says_so(copy: Path, content: str | None) -> None:
    shutil.rmtree(copy / "cells")
    (copy / "summary.csv").unlink()
    if content is not None:
        (copy / "summary.csv").write_text(content)
    with pytest.raises(Prerequisite, match="no cell"):
        read_run(copy)
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**document, "failed": {"a cell": "RuntimeError: no such layer"}}))
    with pytest.raises(Prerequisite, match=r"no cell of .* is finished \(RuntimeError: no such layer\)"):
        read_run(copy)


def test_a_sweep_that_was_stopped_is_read_from_its_finished_cells(copy: Path) -> None:
    whole = read_run(copy)
    before = {file.name: file.read_bytes() for file in copy.glob("*.csv")}
    for name in before:
        (copy / name).unlink()
    derived = read_run(copy)
    for name in ("summary", "execution", "gates"):
        pd.testing.assert_frame_equal(getattr(derived, name), getattr(whole, name))
    assert not list(copy.glob("*.csv"))
    last = whole.cells[-1]["id"]
    whole.summary[whole.summary["cell"] != last].to_csv(
        copy / "summary.csv", index=False
    )  # written before the last cells were added
    assert last in set(read_run(copy).summary["cell"])
    shutil.rmtree(copy / "cells" / last)
    stopped = read_run(copy)
    assert last not in set(stopped.summary["cell"])
    assert stopped.unfinished == 1


def test_reading_and_printing_a_run_needs_no_torch() -> None:
    code = "import sys, robustbench_aig.report; assert not {'torch', 'matplotlib'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_damaged_samples_are_a_user_error(copy: Path) -> None:
    run = read_run(copy)
    (copy / "cells" / ("0" * 12) / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"samples\.parquet"):
        run.samples("0" * 12)


def test_accuracies_that_are_all_0_or_1_are_written_as_json(copy: Path) -> None:
    table = pd.read_csv(copy / "summary.csv", keep_default_na=False)
    table["accuracy"], table["lo"], table["hi"] = 1, 1, 1
    table.to_csv(copy / "summary.csv", index=False)
    described = json.loads(json.dumps(describe_run(copy)))
    assert {entry["clean"] for entry in described["headlines"]} == {1.0}
    assert read_run(copy).summary["accuracy"].dtype == float
