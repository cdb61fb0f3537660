"""A run, read from its folder: the tables, the per-image samples and what was audited."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustbench_aig.audit.check import Finding
from robustbench_aig.engine.store import SCHEMA, RunFolder
from robustbench_aig.errors import Prerequisite, UserError, first_line

CURVE = ["model", "dataset", "gating", "defense", "attack", "attacker", "norm", "seed"]
"""The columns that tell one accuracy curve from another."""

CLEAN = ["model", "dataset", "gating", "defense", "seed"]
"""The columns that a curve shares with the clean row it starts from."""

_TEXT = (*CURVE[:-1], "eps_label", "cell", "flags", "group", "block", "measure")
_WHOLE = ("seed", "n", "draws", "eot", "layer")
_EMPTY = {
    "execution": [*CURVE, "eps", "group", "layer", "block", "n", "rate_clean", "rate_adv"],
    "gates": ["cell", "attacker", "eps_label", "measure", "value", "lo", "hi", "n"],
}


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
    def attacked(self) -> pd.DataFrame:
        """The rows above epsilon 0."""
        return self.rows[self.rows["eps"] > 0]

    @property
    def strongest(self) -> pd.Series:
        """The row of the largest epsilon."""
        return self.rows.iloc[-1]

    @property
    def passes(self) -> float:
        """Forward and backward passes per image, for all epsilons together."""
        return float((self.attacked["forwards_per_image"] + self.attacked["backwards_per_image"]).max())


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        path: the folder.
        config: the resolved configuration.
        notes: what of the grid was left out, in sentences.
        cells: the planned cells: ``id``, ``label``, ``identity`` (all that changes their numbers), ``iterated`` and
            ``aims_at``.
        provenance: versions, hashes, device.
        audit: outcomes of the checks.
        claim_valid: False if a check failed; then no number of the run is a claim of robustness. None before the audit.
        failed: what went wrong, by the label of the cell.
        summary: ``summary.csv``, one row per finished cell and epsilon.
        execution: ``execution.csv``; no rows if no model is dynamic.
        gates: ``gates.csv``; no rows if no model is dynamic.
    """

    path: Path
    config: dict[str, Any]
    notes: list[str]
    cells: list[dict[str, Any]]
    provenance: dict[str, Any]
    audit: list[Finding]
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
    def planned(self) -> dict[str, dict[str, Any]]:
        """The planned cells by id."""
        return {cell["id"]: cell for cell in self.cells}

    def label(self, cell: str | None) -> str:
        """A cell in a few words; nothing for None."""
        return str(self.planned.get(cell, {"label": cell})["label"]) if cell else ""

    def aim(self, curve: Curve) -> str:
        """What its attack wants to change: ``class``, ``gates``, ``compute``, or ``nothing``."""
        return str(self.planned[curve.strongest["cell"]].get("aims_at", "class"))

    @cached_property
    def curves(self) -> list[Curve]:
        """Every accuracy curve, in the order of the table; a run without an attack has none."""
        return [curve for curve in self._curves() if "/" not in curve.attacker]

    @cached_property
    def paths(self) -> list[Curve]:
        """The single gradient paths of adaptive attackers, such as ``adaptive/identity``; they have no samples."""
        return [curve for curve in self._curves() if "/" in curve.attacker]

    @cached_property
    def telling(self) -> list[Curve]:
        """For each dynamic model and gating, the attack that lowered accuracy most; undefended where there is one."""
        chosen: dict[str, Curve] = {}
        for curve in sorted(self.curves, key=lambda curve: (curve.defense != "none", curve.strongest["accuracy"])):
            if pd.notna(curve.strongest["exec_rate_adv"]):
                chosen.setdefault(curve.contestant, curve)
        order = [curve.contestant for curve in self.curves]
        return sorted(chosen.values(), key=lambda curve: order.index(curve.contestant))

    @property
    def group(self) -> str:
        """The group of images whose layers are shown: the paper's birds where the data has them, otherwise all."""
        return "birds" if "birds" in set(self.execution["group"]) else "all"

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

    def layers(self, curve: Curve, group: str) -> pd.DataFrame:
        """The rows of ``execution.csv`` of a curve's largest epsilon, one per unit."""
        table = self.execution
        same = [table[name] == getattr(curve, name) for name in CURVE if name != "dataset"]
        same += [table["group"] == group, table["eps"] == curve.strongest["eps"]]
        return table[np.logical_and.reduce(same)].sort_values("layer")

    def measures(self, row: pd.Series) -> pd.DataFrame:
        """``value, lo, hi, n`` of every measure of ``gates.csv``, by its name, for a row of the summary; maybe none."""
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
    """Read a run folder. Of a sweep that was interrupted, or is going on, what is finished is read.

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
    found = document.get
    failed = found("failed", {})
    tables = _tables(folder, [cell["id"] for cell in found("cells", [])])
    if "summary" not in tables:
        reason = next((f" ({why})" for why in failed.values()), "")
        raise Prerequisite(
            f"no cell of '{folder}' is finished{reason}; run the sweep's command again to go on with it."
        )
    return Run(
        path=folder,
        config=found("config", {}),
        notes=found("notes", []),
        cells=found("cells", []),
        provenance=found("provenance", {}),
        audit=[Finding(**{own.name: entry.get(own.name) for own in fields(Finding)}) for entry in found("audit", [])],
        claim_valid=found("claim_valid"),
        failed=failed,
        **{name: pd.DataFrame(columns=columns) for name, columns in _EMPTY.items() if name not in tables},
        **tables,
    )


def contestant(model: str, gating: str) -> str:
    """A model with its gating, as in ``aig20 · stochastic``; just the model where it decides nothing."""
    return model if gating == "none" else f"{model} · {gating}"


def _tables(folder: Path, cells: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The tables by name: those that the sweep wrote at its end, or of its finished cells where it has not come so far.

    Raises:
        UserError: a table or a cell is damaged.
    """
    files = [folder / f"{name}.csv" for name in ("summary", "execution", "gates")]
    store = RunFolder(folder)
    try:
        texts = {file.stem: file.read_text(encoding="utf-8") for file in files if file.exists()}
        found = {name: _table(text) for name, text in texts.items() if text.strip()}
        known = set(found["summary"]["cell"]) if "summary" in found else set()
        if not set(store.finished()) & set(cells) <= known:
            found = {name: _table(text) for name, text in store.tables(cells).items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read the tables of '{folder}' ({first_line(error)}); run the sweep again to restore them."
        ) from None
    return found


def _table(text: str) -> pd.DataFrame:
    # A class may be called "null" or "nan": only an empty field is a missing value.
    table = pd.read_csv(StringIO(text), dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""])
    numbers = table.columns.difference([*_TEXT, *_WHOLE], sort=False)
    return table.astype(dict.fromkeys(numbers, float))  # accuracies that are all 0 or 1 are no integers
