import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from robustbench_aig.errors import UsageError
from robustbench_aig.report import Run, figures, read_run, write_report
from robustbench_aig.report.console import NOT_A_CLAIM
from tests.report.runs import Population, grid, write


@pytest.fixture(scope="module")
def reported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "first"
    shutil.copytree(run_folder, folder)
    files = write_report(folder)
    figures = ["accuracy.png", "compute.png", "distances.png", "execution.png", "mediation.png"]
    assert [file.name for file in files] == [*figures, "report.html"]
    return folder


def test_writing_twice_gives_the_same_bytes(reported: Path) -> None:
    files = [*sorted(reported.glob("figures/*.png")), reported / "report.html"]
    before = [file.read_bytes() for file in files]
    write_report(reported)
    assert [file.read_bytes() for file in files] == before


def test_pictures_are_large_enough_to_read_and_hold_no_metadata(reported: Path) -> None:
    for file in reported.glob("figures/*.png"):
        with Image.open(file) as image:
            assert image.width >= 1600
            assert set(image.info) <= {"dpi"}
            assert np.asarray(image.convert("L")).std() > 10


def drawn(run: Run, name: str, group: str | None = None) -> Figure:
    """A figure that the run has data for."""
    figure = figures.draw(name, run, group)
    assert figure is not None
    return figure


def titles(place: Axes) -> tuple[str, str]:
    """The bold line above a panel and the plain one."""
    return place.get_title(loc="left").strip(), place.texts[0].get_text()


def test_accuracy_figure_draws_the_table(run_folder: Path) -> None:
    run = read_run(run_folder)
    axes = drawn(run, "accuracy").axes
    assert [titles(place) for place in axes] == [("fgsm", "static attacker"), ("pgd:steps=20", "adaptive attacker")]
    lines = [line.get_ydata() for place in axes for line in place.lines if len(line.get_xdata()) == 5]
    np.testing.assert_allclose(
        sorted(map(list, lines)), sorted(list(curve.rows["accuracy"]) for curve in run.curves), atol=1e-12
    )
    labels = [label.get_text() for label in axes[0].get_xticklabels()]
    assert labels[0] == "0"
    assert labels[-1] == "16/255"


def test_many_curves_get_a_panel_per_defence(tmp_path: Path) -> None:
    cells = list(grid())
    others = [{**cell, "model": "resnet32"} for cell in cells if cell["model"] == "resnet20"]
    run = read_run(write(tmp_path / "run", Population(40, 3, (4, 8)), cells + others))
    panels = [titles(place) for place in drawn(run, "accuracy").axes]
    assert panels[:2] == [("fgsm", f"static attacker · {defense}") for defense in ("no defence", "jpeg:75")]
    assert len(panels) == 4


def test_execution_figure_draws_rates_and_flips_of_a_group(run_folder: Path) -> None:
    run = read_run(run_folder)
    left, right, *_ = drawn(run, "execution", "bird").axes
    table = run.execution
    table = table[(table["group"] == "bird") & (table["gating"] == "stochastic") & (table["defense"] == "none")]
    table = table[(table["attack"] == "pgd:steps=20") & (table["eps"] == table["eps"].max())]
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], table["rate_clean"])
    np.testing.assert_allclose([bar.get_height() for bar in right.patches], table["flip_rate"])


def test_distances_figure_counts_gates_of_images(run_folder: Path) -> None:
    run = read_run(run_folder)
    left, right = drawn(run, "distances").axes
    curve = next(curve for curve in run.curves if curve.gating == "deterministic" and curve.attack != "fgsm")
    samples = run.samples(curve.strongest["cell"], ["eps_label", "flips"]).query("eps_label == '16/255'")
    moved = np.stack(samples["flips"].to_list()).sum(1)
    counted = np.bincount(moved) / len(moved)
    np.testing.assert_allclose([bar.get_height() for bar in right.patches[-len(counted) :]], counted)
    assert len(left.lines) == 1  # the null of sampled gates
    assert len(right.lines) == 0


def test_mediation_figure_draws_the_four_accuracies(run_folder: Path) -> None:
    run = read_run(run_folder)
    left, _ = drawn(run, "mediation").axes
    curve = next(curve for curve in run.curves if curve.gating == "stochastic" and curve.attack != "fgsm")
    tables = [run.measures(row)["value"] for _, row in curve.rows.iterrows() if row["eps"] > 0]
    wanted = [table[f"mediation_{part}"] for part in ("neither", "gates", "features", "both") for table in tables]
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], wanted)


def test_page_shows_whole_graphs_of_every_attacked_row(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    section = page[page.index("<h2>Whole graphs:") :]
    section = section[: section.index("</table>")]
    assert section.count("<tr>") == 1 + 8 * 4
    assert "nan" not in section


def test_a_run_of_an_older_version_is_reported_without_measures(run_folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(run_folder, old, ignore=shutil.ignore_patterns("gates.*", "figures", "report.html"))
    names = [file.name for file in write_report(old)]
    assert names == ["accuracy.png", "compute.png", "distances.png", "execution.png", "report.html"]
    assert "Whole graphs:" not in (old / "report.html").read_text()


def test_a_run_without_gates_has_one_figure(tmp_path: Path) -> None:
    cells = [cell for cell in grid() if cell["gating"] == "none"]
    run = write(tmp_path / "run", Population(40, 3, (4, 8)), cells)
    assert not (run / "execution.csv").exists()
    assert [file.name for file in write_report(run)] == ["accuracy.png", "report.html"]
    assert "Execution rates" not in (run / "report.html").read_text()


def test_page_needs_nothing_else_and_has_every_row(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    without = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|<link|@import|url\(", without)
    table = without[without.index('id="rows"') :]
    table = table[: table.index("</table>")]
    assert table.count("<tr>") == 1 + 6 + 12 * 4
    assert "WARN" in without
    assert NOT_A_CLAIM not in without


def test_page_escapes_names_and_says_when_nothing_is_claimed(tmp_path: Path) -> None:
    cells = [{**cell, "model": "<script>x</script>"} for cell in grid() if cell["gating"] == "none"]
    failure = {"id": "T4", "title": "null attack", "verdict": "FAIL", "text": "a & b changed"}
    run = write(tmp_path / "run", Population(40, 3, (8,)), cells, [failure])
    write_report(run)
    page = (run / "report.html").read_text()
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
    assert "a &amp; b changed" in page
    assert page.index(NOT_A_CLAIM) < page.index("robust accuracy ≤")


def test_a_group_of_images_gets_a_figure_of_its_own(run_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    files = write_report(run, ["cat", "dog", "cat"])
    assert [file.name for file in files if file.stem.startswith("execution-")] == [
        "execution-cat.png",
        "execution-dog.png",
    ]
    assert "Images of cat alone" in (run / "report.html").read_text()
    with pytest.raises(UsageError, match="did you mean bird"):
        write_report(run, ["birds"])
