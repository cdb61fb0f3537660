from pathlib import Path

import pytest

from tests.report.runs import AUDIT, Population, grid, write


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 images, ten draws and four epsilons, audited with one warning."""
    return write(tmp_path_factory.mktemp("runs") / "first", Population(150, 10, (2, 4, 8, 16)), list(grid()), AUDIT)
