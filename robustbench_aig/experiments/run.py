"""Run one experiment by name and write what it found."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustbench_aig.data.dataset import Dataset
from robustbench_aig.experiments import registry
from robustbench_aig.experiments.study import Findings, Study
from robustbench_aig.files import ensure_folder, write_atomically
from robustbench_aig.models.classifier import check
from robustbench_aig.models.resolve import load_models
from robustbench_aig.provenance import environment
from robustbench_aig.report.figures import style

CHECKED = 8
"""Images on which a model must keep its contract before an experiment starts."""


def analyze(
    experiment: str,
    models: Sequence[str],
    out: Path,
    dataset: Callable[[], Dataset],
    *,
    device: torch.device,
    config: dict[str, Any],
    **settings: Any,
) -> tuple[pd.DataFrame, list[Path]]:
    """Run an experiment on models as ``-m`` names them and write its tables, figures and provenance into a folder.

    Args:
        experiment: a name of :data:`robustbench_aig.experiments.registry`.
        models: at least one.
        out: the folder; files of an earlier call are replaced.
        dataset: loads the images; not called where it reads logs.
        device: where to run.
        config: the command's options, for the record.
        settings: further fields of :class:`~robustbench_aig.experiments.study.Study`.

    Returns:
        The table for the console, and the files.

    Raises:
        UserError: as the experiment does, or the folder cannot be written.
    """
    entry = registry.entry(experiment)
    find = entry.load()
    ensure_folder(out)
    record: dict[str, Any] = {"experiment": experiment, "config": config}
    if entry.facts["reads"] == "logs":
        findings: Findings = find(models)
    else:
        study = Study(load_models(models, device), dataset(), device=device, **settings)
        sample = study.dataset.images(torch.arange(min(CHECKED, len(study.dataset)))).to(device)
        for model in study.models:
            check(model, sample, len(study.dataset.classes))
        findings = find(study)
        record |= _origin(study)
    record |= environment(device)
    return findings.shown, _write(findings, out, experiment, record)


def _origin(study: Study) -> dict[str, Any]:
    data = study.dataset
    return {
        "models": {model.name: model.weights_hash for model in study.models},
        "dataset": {"name": data.name, "split": data.split, "images": len(data), "index": data.index_hash},
    }


def _write(findings: Findings, out: Path, experiment: str, record: dict[str, Any]) -> list[Path]:
    files = []
    for name, table in findings.tables.items():
        files.append(out / f"{name}.csv")
        with write_atomically(files[-1]) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    for name, figure in findings.figures.items():
        files.append(style.save(figure, out / f"{name}.png"))
    files.append(out / f"{experiment}.json")
    with write_atomically(files[-1]) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return files
