"""Certified radii of a sweep behind Gaussian smoothing."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import nn

import defenses
from defenses.smoothing import certify
from robustbench_aig.audit.runner import sweep
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.report import print_run
from tests.audit.audits import classifier
from tests.engine import grids


def test_clean_cells_behind_smoothing_have_radii(plain: nn.Module, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    behind = (defenses.make("smoothing:0.1"), defenses.make("smoothing:0.1+bitdepth:5"))
    settings = grids.settings(
        models=[classifier(plain)],
        epsilons=parse_epsilons(["0"]),
        gatings=(Gating("none"),),
        defenses=behind,
        draws=300,
    )
    sweep(settings, tmp_path)
    cells = dict(pd.read_csv(tmp_path / "summary.csv").set_index("defense").cell)
    alone, composed = (pd.read_parquet(tmp_path / "cells" / cells[d.label] / "samples.parquet") for d in behind)
    assert "radius" not in composed
    assert alone.correct.max() > 255  # more than a byte holds
    np.testing.assert_allclose(alone.radius, certify(alone.correct, 300, 0.1), rtol=1e-6)
    assert (alone.radius > 0).any()
    shown = io.StringIO()
    print_run(tmp_path, Console(file=shown, width=160))
    row = next(line for line in shown.getvalue().splitlines() if "smoothing:0.1 " in line and " 300 " in line)
    assert f"{100 * (alone.radius > 0.1).mean():.1f}" in row
