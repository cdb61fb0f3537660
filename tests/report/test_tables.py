import io
import json
from pathlib import Path

from rich.console import Console

from robustbench_aig.report import describe_run, print_run, show_run
from robustbench_aig.report.console import NOT_A_CLAIM
from robustbench_aig.report.tables import SECTIONS
from tests.report.runs import AUDIT, Population, grid, write


def printed(run: Path, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_run(run, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_report_shows_bounds_audit_curves_and_gates(run_folder: Path) -> None:
    text = printed(run_folder)
    assert "cifar10 · 150 images · seed 0" in text
    assert text.count("robust accuracy ≤") == 6
    assert "audit: 1 pass · 1 warn · 0 fail" in text
    assert "WARN G3" in text
    assert "accuracy [95 %] · fgsm · static · L∞ · jpeg:75" in text
    for title in SECTIONS.values():
        assert title in text
    for heading in ("vote", "worst", "without attack", "graph kept", "monitor AUC"):
        assert heading in text
    assert NOT_A_CLAIM not in text


def test_a_failed_check_stands_over_the_headline(tmp_path: Path) -> None:
    failure = {"id": "G2", "title": "zero gradient", "verdict": "FAIL", "text": "40 images were never attacked."}
    run = write(tmp_path / "run", Population(30, 3, (8,)), list(grid()), [*AUDIT, failure])
    text = printed(run)
    assert text.index(NOT_A_CLAIM) < text.index("robust accuracy")
    assert text.index("FAIL G2") < text.index("WARN G3")


def test_no_number_is_lost_on_a_narrow_console(run_folder: Path) -> None:
    narrow = printed(run_folder, 50)
    for label in ("2/255", "4/255", "8/255", "16/255"):
        assert narrow.count(f" {label}") >= 4
    wide = printed(run_folder, 200)
    row = next(line for line in wide.splitlines() if line.startswith("resnet20 ") and "robust" not in line)
    assert all(number in narrow for number in row.split())


def test_a_run_of_clean_cells_reports_them(tmp_path: Path) -> None:
    cells = [cell for cell in grid() if cell["attack"] == "none"]
    text = printed(write(tmp_path / "run", Population(30, 3, (8,)), cells))
    assert "on clean images" in text
    assert "aig20" in text


def test_show_lists_settings_and_the_state_of_cells(run_folder: Path, tmp_path: Path) -> None:
    run = write(tmp_path / "run", Population(30, 3, (8,)), list(grid()))
    document = json.loads((run / "run.json").read_text())
    document["cells"].append({"id": "f" * 12, "label": "later"})
    (run / "run.json").write_text(json.dumps(document))
    console = Console(file=io.StringIO(), width=120)
    show_run(run, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "18 of 19 finished" in text
    assert "git.commit" in text
    assert next(line for line in text.splitlines() if "later" in line).split()[-2:] == ["to", "do"]


def test_json_has_every_row_and_no_nan(run_folder: Path) -> None:
    described = json.loads(json.dumps(describe_run(run_folder), allow_nan=False))
    assert len(described["summary"]) == 6 + 12 * 4
    assert described["summary"][0]["exec_rate_clean"] is None
    assert described["claim_valid"] is True
    assert [entry["accuracy"] <= entry["clean"] for entry in described["headlines"]] == [True] * 6
