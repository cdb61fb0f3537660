"""From the options of ``bench`` to a subject, and from rows to what is printed and saved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.measure import Row
from benchmarks.subject import Subject
from robustbench_aig.contracts.defense import Defense
from robustbench_aig.data import load_dataset
from robustbench_aig.device import resolve_device
from robustbench_aig.errors import UsageError
from robustbench_aig.files import write_atomically
from robustbench_aig.models.classifier import check
from robustbench_aig.models.resolve import load_model
from robustbench_aig.provenance import environment


def subject_of(
    codec: Defense,
    *,
    model: str,
    gated: str,
    data: str,
    data_dir: Path | None,
    download: bool,
    limit: int,
    repeats: int,
    device: str,
    **_: Any,
) -> Subject:
    """Load what the options name.

    Raises:
        UserError: models or images are missing or do not fit each other, or ``gated`` has no gates.
    """
    if repeats < 1:
        raise UsageError("--repeats must be 1 or more.")
    images = load_dataset(data, data_dir=data_dir, download=download, limit=limit)
    where = resolve_device(device)
    plain, with_gates = load_model(model, where), load_model(gated, where)
    if plain.layout is not None or with_gates.layout is None:
        raise UsageError("give a model without gates by -m and one with gates by --gated.")
    subject = Subject(plain, with_gates, images, codec, data, data_dir, gated, where, repeats)
    for classifier in (plain, with_gates):
        check(classifier, subject.images[:8], len(images.classes))
    return subject


def shown(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as text for a table on the terminal."""
    return [
        {
            "benchmark": row.benchmark,
            "case": row.case,
            "contender": row.contender,
            "seconds": f"{row.seconds:.3f}",
            "ratio": f"{row.ratio:.3f}",
            "limit": "" if row.limit is None else f"{row.limit:.3f}{'' if row.met else ' missed'}",
            "cpu ratio": "" if row.cpu_ratio is None else f"{row.cpu_ratio:.3f}",
            "same": "" if row.same is None else f"{row.same:.4f}",
            "peak MiB": "" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            "note": row.note,
        }
        for row in rows
    ]


def save(out: Path, name: str, rows: Sequence[Row], subject: Subject) -> None:
    """Write ``NAME.csv``, and ``NAME.json`` with what the times depend on."""
    with write_atomically(out / f"{name}.csv") as temporary:
        pd.DataFrame([row.as_dict() for row in rows]).to_csv(temporary, index=False, float_format="%.6g")
    record = {
        **environment(subject.device),
        "models": [subject.model.name, subject.gated.name],
        "dataset": [subject.dataset.name, len(subject.dataset)],
        "repeats": subject.repeats,
    }
    with write_atomically(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
