"""The run folder: finished cells on disk, tables derived from them, and the lock that keeps a second process out.

RUN/run.json                    configuration, planned cells, provenance, audit
RUN/cells/<id>/result.json      one finished cell; written last, so its existence means the cell is complete
RUN/cells/<id>/samples.parquet  one row per image and epsilon
RUN/cells/<id>/execution.parquet  rates per group and layer (models with gates)
RUN/cells/<id>/gates.parquet    measures of whole graphs (models with gates)
RUN/cells/<id>/draws.npz        the clean cell's decisions per draw
RUN/summary.csv, execution.csv, gates.csv  derived from the cells, in the order of the plan
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.errors import UserError
from robustbench_aig.files import write_atomically

SCHEMA = 1


class RunFolder:
    """A folder that holds one sweep.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            UserError: another process holds it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            with lock:
                yield
        except Timeout:
            raise UserError(
                f"another process is writing {self.path}; wait for it, or choose another folder with -o."
            ) from None
        except PermissionError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}); choose a folder that you may write to with -o."
            ) from None

    def refuse_foreign(self, cells: Sequence[str]) -> None:
        """Accept an empty folder, or one whose finished cells all belong to the plan.

        Args:
            cells: ids of the planned cells.

        Raises:
            UserError: the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; choose a folder with -o.")
        others = any(self.path.glob("[!.]*"))
        if others and not (self.path / "run.json").exists():
            raise UserError(
                f"{self.path} holds files that are no run of this suite; choose an empty or new folder with -o."
            )
        strangers = set(self.finished()) - set(cells)
        if strangers:
            raise UserError(
                f"{self.path} holds {len(strangers)} cells of another sweep; "
                "choose another folder with -o, or add to the same command."
            )

    def finished(self) -> list[str]:
        """Ids of the cells that are complete."""
        return sorted(path.parent.name for path in self.path.glob("cells/*/result.json"))

    def cell(self, cell_id: str) -> Path:
        """The folder of a cell."""
        return self.path / "cells" / cell_id

    def write_cell(
        self, cell_id: str, result: dict[str, Any], tables: Mapping[str, pa.Table | pd.DataFrame], clean: Scores | None
    ) -> None:
        """Write a finished cell; ``result.json`` comes last.

        Args:
            cell_id: of the cell.
            result: the values of ``result.json``.
            tables: by name.
            clean: of a clean cell, its scores.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        folder = self.cell(cell_id)
        for name, table in tables.items():
            with write_atomically(folder / f"{name}.parquet") as temporary:
                arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
                pq.write_table(arrow, temporary, compression="zstd")
        if clean is not None:
            with write_atomically(folder / "draws.npz") as temporary, temporary.open("wb") as stream:
                np.savez_compressed(stream, **vars(clean))
        self._json(folder / "result.json", result)

    def result(self, cell_id: str) -> dict[str, Any]:
        """The result of a finished cell."""
        loaded: dict[str, Any] = json.loads((self.cell(cell_id) / "result.json").read_text())
        return loaded

    def draws(self, cell_id: str) -> Scores | None:
        """The scores that a finished clean cell keeps; None if it is not finished."""
        path = self.cell(cell_id) / "draws.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return Scores(**arrays)

    def samples(self, cell_id: str) -> pd.DataFrame:
        """One row per image and epsilon of a finished cell."""
        return pd.read_parquet(self.cell(cell_id) / "samples.parquet")

    def write_run(self, run: dict[str, Any]) -> None:
        """Write ``run.json``."""
        self._json(self.path / "run.json", {"schema": SCHEMA, **run})

    def tables(self, cells: Sequence[str]) -> dict[str, str]:
        """``summary``, ``execution`` and ``gates`` of the finished cells among ``cells``, in that order, as CSV; what
        none of them has is left out."""
        done = [cell for cell in cells if (self.cell(cell) / "result.json").exists()]
        rows = [row for cell in done for row in self.result(cell)["rows"]]
        parts = {"summary": [pd.DataFrame(rows)] if rows else []}
        for name in ("execution", "gates"):
            files = [self.cell(cell) / f"{name}.parquet" for cell in done]
            parts[name] = [pd.read_parquet(file) for file in files if file.exists()]
        tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items() if found}
        return {name: table.to_csv(index=False, float_format="%.10g") for name, table in tables.items()}

    def write_tables(self, cells: Sequence[str]) -> None:
        """Write :meth:`tables`."""
        for name, text in self.tables(cells).items():
            with write_atomically(self.path / f"{name}.csv") as temporary:
                temporary.write_text(text, encoding="utf-8")

    def discard_unfinished(self) -> None:
        """Remove what a killed process left: cells that it did not finish, files that it had not named yet."""
        for pattern in (".*.json-*", ".*.csv-*"):
            for unnamed in self.path.glob(pattern):
                unnamed.unlink()
        for folder in self.path.glob("cells/*"):
            if not (folder / "result.json").exists():
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _json(path: Path, value: dict[str, Any]) -> None:
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
