"""The legend of the accuracy figure stays inside the picture, however long the names are."""

from pathlib import Path

import pytest

from robustbench_aig.report import figures
from robustbench_aig.report.run import read_run
from tests.report import runs


@pytest.mark.parametrize("name", ["aig20", "aig20-cifar10", "a-model-with-a-rather-long-name-aig110"])
def test_legend_fits(tmp_path: Path, name: str) -> None:
    cells = [cell | {"model": name if cell["model"] == "aig20" else cell["model"]} for cell in runs.grid()]
    figure = figures.draw("accuracy", read_run(runs.write(tmp_path, runs.Population(60, 4, (2, 4)), cells)))
    assert figure is not None
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
