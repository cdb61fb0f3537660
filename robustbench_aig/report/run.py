"""A finished run, read from its folder: the tables, the per-image samples and what was audited."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_aig.engine.store import SCHEMA, RunFolder
from robustbench_aig.errors import Prerequisite, UserError, first_line

CURVE = ["model", "dataset", "gating", "defense", "attack", "attacker", "norm", "seed"]
"""The columns that tell one accuracy curve from another."""

CLEAN = ["model", "dataset", "gating", "defense", "seed"]
"""The columns that a curve shares with the clean row it starts from."""

_TEXT = (*CURVE[:-1], "eps_label", "cell", "flags", "group", "block", "measure")
_WHOLE = ("seed", "n", "draws", "eot", "layer")
_EMPTY = pd.DataFrame(columns=[*CURVE, "eps", "group", "layer", "block", "n", "rate_clean", "rate_adv"])
_NO_MEASURES = pd.DataFrame(columns=["cell", "attacker", "eps_label", "measure", "value", "lo", "hi", "n"])


class Verdict(NamedTuple):
    """The outcome of one audit check.

    Attributes:
        id: of the check, such as ``G2``.
        title: its name.
        verdict: PASS, WARN, FAIL, INFO or n.a. (not applicable).
        text: symptom and remedy.
        cell: the cell it speaks of; None for the run.
        value: what was measured, if a number.
        threshold: what it was held against, if a number.
    """

    id: str
    title: str
    verdict: Literal["PASS", "WARN", "FAIL", "INFO", "n.a."]
    text: str
    cell: str | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Curve:
    """Accuracy over epsilon of one model, gating, defence, attack, attacker and seed.

    Attributes:
        rows: rows of ``summary.csv`` by ascending epsilon, the clean row first where the run has one.
    """

    model: str
    dataset: str
    gating: str
    defense: str
    attack: str
    attacker: str
    norm: str
    seed: int
    rows: pd.DataFrame

    @property
    def contestant(self) -> str:
        """The model with its gating, as in ``aig20 · stochastic``."""
        return contestant(self.model, self.gating)

    @property
    def strongest(self) -> pd.Series:
        """The row of the largest epsilon."""
        return self.rows.iloc[-1]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        path: the folder.
        config: the resolved configuration.
        cells: the planned cells, ``id``, ``label``, ``identity`` (all that changes their numbers) and ``iterated``.
        provenance: versions, hashes, device.
        audit: outcomes of the checks.
        claim_valid: False if a check failed; then no number of the run is a claim of robustness. None before the audit.
        failed: what went wrong, by the label of the cell.
        summary: ``summary.csv``, one row per finished cell and epsilon.
        execution: ``execution.csv``; no rows if no model has gates.
        gates: ``gates.csv``; no rows if no model has gates, or an older version wrote the run.
    """

    path: Path
    config: dict[str, Any]
    cells: list[dict[str, Any]]
    provenance: dict[str, Any]
    audit: list[Verdict]
    claim_valid: bool | None
    failed: dict[str, str]
    summary: pd.DataFrame
    execution: pd.DataFrame
    gates: pd.DataFrame

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def unfinished(self) -> int:
        """How many planned cells have no result yet."""
        return len({cell["id"] for cell in self.cells} - set(self.summary["cell"]))

    @cached_property
    def iterated(self) -> frozenset[str]:
        """Ids of the cells whose attack takes more than one step."""
        return frozenset(cell["id"] for cell in self.cells if cell["iterated"])

    @cached_property
    def curves(self) -> list[Curve]:
        """Every accuracy curve, in the order of the table; a run without an attack has none."""
        return [curve for curve in self._curves() if "/" not in curve.attacker]

    @cached_property
    def paths(self) -> list[Curve]:
        """The single gradient paths of adaptive attackers, such as ``adaptive/identity``; they have no samples."""
        return [curve for curve in self._curves() if "/" in curve.attacker]

    @cached_property
    def classes(self) -> int | None:
        """The number of classes, known only if each label from 0 to the largest is among the evaluated images."""
        if self.summary.empty:
            return None
        labels = self.samples(str(self.summary["cell"].iloc[0]), ["label"])["label"]
        number = int(labels.max()) + 1
        return number if labels.nunique() == number else None

    def samples(self, cell: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per image and epsilon of a finished cell (``samples.parquet``).

        Args:
            cell: its id.
            columns: which to read; all by default.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        file = self.path / "cells" / cell / "samples.parquet"
        try:
            return pd.read_parquet(file, columns=None if columns is None else list(columns))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file} ({first_line(error)}); run the sweep again to restore it.") from None

    def measures(self, row: pd.Series) -> pd.DataFrame:
        """``value, lo, hi, n`` of every measure of whole graphs, by its name, for a row of the summary; maybe none."""
        table = self.gates
        same = [table[name] == row[name] for name in ("cell", "attacker", "eps_label")]
        return table[np.logical_and.reduce(same)].set_index("measure")[["value", "lo", "hi", "n"]]

    def shares(self, curve: Curve) -> pd.DataFrame:
        """Shares of correct draws in [0, 1]: a row per epsilon of the curve, by label, and a column per image id."""
        return self.counts(curve).div(curve.rows["draws"].to_numpy(), axis=0)

    def counts(self, curve: Curve) -> pd.DataFrame:
        """Correct draws: a row per epsilon of the curve, by label, and a column per image id."""
        cells = curve.rows["cell"].unique()
        samples = pd.concat([self.samples(cell, ["id", "eps_label", "correct"]) for cell in cells])
        return (
            samples.pivot(index="eps_label", columns="id", values="correct")
            .loc[curve.rows["eps_label"]]
            .astype(np.int64)
        )

    def _curves(self) -> Iterator[Curve]:
        clean = self.summary[self.summary["attack"] == "none"]
        attacked = self.summary[self.summary["attack"] != "none"]
        # By cell too: two attacks of one name may differ in their parameters.
        for key, rows in attacked.groupby([*CURVE, "cell"], sort=False):
            fields: dict[str, Any] = dict(zip(CURVE, key, strict=False))
            start = clean[np.logical_and.reduce([clean[column] == fields[column] for column in CLEAN])]
            joined = pd.concat([start, rows[rows["eps"] > 0]], ignore_index=True)
            yield Curve(**fields, rows=joined.sort_values("eps", kind="stable", ignore_index=True))


def read_run(path: Path | str) -> Run:
    """Read a run folder.

    Raises:
        Prerequisite: there is no such folder, or no cell in it is finished.
        UserError: it is not a run of this suite, is damaged, or was written by a newer version.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise Prerequisite(f"there is no run folder '{folder}'; name one that `robustbench-aig sweep -o` wrote.")
    try:
        document = json.loads((folder / "run.json").read_text())
        schema = document["schema"]
    except FileNotFoundError:
        raise UserError(
            f"'{folder}' is no run folder (it has no run.json); name one that `robustbench-aig sweep -o` wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {folder / 'run.json'} ({first_line(error)}); run the sweep again to restore it."
        ) from None
    if schema != SCHEMA:
        raise UserError(
            f"'{folder}' has schema {schema} and this version reads {SCHEMA}; use the version that wrote it."
        )
    summary, execution, gates = _tables(folder, [cell["id"] for cell in document.get("cells", [])])
    if summary.empty:
        failed = document.get("failed", {})
        reason = f" ({next(iter(failed.values()))})" if failed else ""
        raise Prerequisite(
            f"no cell of '{folder}' is finished{reason}; run the sweep's command again to go on with it."
        )
    return Run(
        folder,
        document.get("config", {}),
        document.get("cells", []),
        document.get("provenance", {}),
        [
            Verdict(**{key: entry[key] for key in Verdict._fields if key in entry})
            for entry in document.get("audit", [])
        ],
        document.get("claim_valid"),
        document.get("failed", {}),
        summary,
        execution,
        gates,
    )


def contestant(model: str, gating: str) -> str:
    """A model with its gating, as in ``aig20 · stochastic``; just the model where it has no gates."""
    return model if gating == "none" else f"{model} · {gating}"


def _tables(folder: Path, cells: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Summary, execution and gates: as written, or derived anew where a sweep was stopped before it wrote them.

    Raises:
        UserError: a table or a cell is damaged.
    """
    store = RunFolder(folder)
    try:
        names = ("summary", "execution", "gates")
        texts = {name: (folder / f"{name}.csv").read_text() for name in names if (folder / f"{name}.csv").exists()}
        read = {name: _table(text) for name, text in texts.items()}
        finished = set(store.finished()) & set(cells)
        if finished - set(read["summary"]["cell"] if "summary" in read and len(read["summary"]) else ()):
            read = {name: _table(text) for name, text in store.tables(cells).items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read the tables of '{folder}' ({first_line(error)}); run the sweep again to restore them."
        ) from None
    return read.get("summary", pd.DataFrame()), read.get("execution", _EMPTY), read.get("gates", _NO_MEASURES)


def _table(text: str) -> pd.DataFrame:
    if not text.strip():
        return pd.DataFrame()
    # A class may be called "null" or "nan": only an empty field is a missing value.
    table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""])
    numbers = table.columns.difference([*_TEXT, *_WHOLE], sort=False)
    return table.astype(dict.fromkeys(numbers, float))  # accuracies that are all 0 or 1 are no integers
