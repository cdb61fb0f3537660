"""The sweep engine: computes the planned cells that are not finished, and writes each when it is done.

Cells of one job share one crafting; all cells of one model, gating, defence and seed share one clean scoring.
"""

import math
import sysconfig
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustbench_aig.contracts.crafting import Crafted, craft
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.target import Passes, Reference
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.device import give_back_memory, resident_memory
from robustbench_aig.engine import eot, known_noise
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.batches import Batch
from robustbench_aig.engine.crossing import cross
from robustbench_aig.engine.jobs import Job, jobs
from robustbench_aig.engine.outcomes import Outcome, Spent
from robustbench_aig.engine.plan import Cell, Settings, left_out, plan
from robustbench_aig.engine.provenance import provenance
from robustbench_aig.engine.results import results
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.errors import Prerequisite, Unwritable, UserError, described
from robustbench_aig.models.checkpoints import weights_hash
from robustbench_aig.progress import Progress, Silent

DEFAULT_BATCH = {"cpu": 128, "cuda": 2000}
REFILL = 4
"""Passes' worth of images that an attack gets at once where decided images leave: then passes stay full for longer."""
ROOM = 2**24
"""Most numbers in those images (64 MiB): an attack remembers several such tensors, and one per epsilon."""
WARM = 8
"""Batches after which a process should have the memory that it needs; with more, it gives back what it does not use.
That costs page faults, a tenth of a sweep with FGSM if done at every batch."""


Examine = Callable[[RunFolder, list[Cell], dict[str, str]], list[dict[str, Any]]]
"""Maps a run folder, its cells and the hash of each model's weights before the sweep to findings."""


@dataclass(frozen=True)
class Done:
    """How a sweep ended.

    Attributes:
        done: cells computed now.
        skipped: cells that were finished before.
        failed: what went wrong, by cell label.
        claim_valid: False when a check of the audit failed; None without an audit.
    """

    done: int
    skipped: int
    failed: dict[str, str]
    claim_valid: bool | None


def sweep(
    settings: Settings,
    out: Path,
    *,
    config: dict[str, Any] | None = None,
    progress: Progress | None = None,
    examine: Examine | None = None,
) -> Done:
    """Compute every cell of the grid into the run folder ``out``; finished cells are kept, so the same call resumes.

    Args:
        settings: the grid.
        out: the run folder.
        config: what the user asked for, recorded in ``run.json``.
        progress: told how far it is.
        examine: looks at the finished run and returns findings for ``run.json``; without it the run claims nothing.

    Raises:
        UsageError: the grid makes no sense.
        UserError: the folder cannot be used, or the disk is full; finished cells are kept.
    """
    cells, notes, progress = plan(settings), left_out(settings), progress or Silent()
    folder = RunFolder(out)
    ids = [cell.id for cell in cells]
    folder.refuse_foreign(ids)
    with folder.locked():
        folder.discard_unfinished()
        skipped = set(folder.finished())
        run = {
            "config": config or {},
            "notes": notes,
            "cells": [_listed(cell) for cell in cells],
            "provenance": provenance(settings),
        }
        folder.write_run({**run, "audit": [], "claim_valid": None})
        weights = {model.name: weights_hash(model.network) for model in settings.models}
        for note in notes:
            progress.note(note)
        try:
            failed = _Engine(settings, folder, progress).run([cell for cell in cells if cell.id not in skipped])
        finally:  # also when it is interrupted, what is finished can be read
            folder.write_tables(ids)
        findings = examine(folder, cells, weights) if examine is not None and folder.finished() else []
        valid = all(finding["verdict"] != "FAIL" for finding in findings) if findings else None
        folder.write_run({**run, "audit": findings, "claim_valid": valid, "failed": failed})
    return Done(len(cells) - len(skipped) - len(failed), len(skipped), failed, valid)


def _reason(error: BaseException) -> str:
    """What failed, in one line, with the last line of code that is neither this suite's nor a library's."""
    if isinstance(error, UserError):
        return str(error)
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if not _installed(Path(frame.filename))]
    return described(error) + "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in places[-1:])


def _installed(file: Path) -> bool:
    root = Path(__file__).parents[2]
    homes = [*(root / name for name in ("robustbench_aig", "attacks", "defenses")), Path(sysconfig.get_path("stdlib"))]
    packaged = {"site-packages", "dist-packages"}.intersection(file.parts) or str(file).startswith("<")
    return bool(packaged) or any(file.is_relative_to(home) for home in homes)


def _listed(cell: Cell) -> dict[str, Any]:
    attack = cell.attack
    return {
        "id": cell.id,
        "label": cell.label,
        "iterated": attack is not None and attack.iterated,
        "aims_at": "nothing" if attack is None else attack.aims_at,
        "identity": cell.identity,
    }


class _Engine:
    def __init__(self, settings: Settings, folder: RunFolder, progress: Progress) -> None:
        self.settings, self.folder, self.progress = settings, folder, progress
        self.batch_size = settings.batch_size or DEFAULT_BATCH.get(settings.device.type, 128)
        self.clean: dict[str, Scores] = {}

    def run(self, cells: list[Cell]) -> dict[str, str]:
        """Compute the cells; returns the failures by label. A disk that is full or images that cannot be read end the
        sweep at once."""
        failed: dict[str, str] = {}
        self.progress.start(sum(len(cell.dataset) * max(1, len(cell.epsilons)) for cell in cells), "sweep")
        for job in jobs(cells):
            try:
                self._with_room(job)
            except (KeyboardInterrupt, Unwritable, Prerequisite):
                raise
            except BaseException as error:  # whatever a model, an attack or a defence raises
                reason = _reason(error)
                for cell in job:
                    failed[cell.label if cell.label not in failed else f"{cell.label} ({cell.id})"] = reason
                self.progress.note(f"failed: {job[0].label}: {reason}")
        self.progress.stop()
        return failed

    def _with_room(self, job: Job) -> None:
        """Compute a job; on a lack of memory halve the batch and start the job again (only if the size was ours to
        choose)."""
        while True:
            try:
                with frozen(job[0].model.network):
                    return self._compute(job)
            except torch.OutOfMemoryError:
                if self.settings.batch_size is not None or self.batch_size == 1:
                    raise UserError(
                        f"out of memory at {self.batch_size} images per pass; set a smaller --batch-size."
                    ) from None
                self.batch_size //= 2
                torch.cuda.empty_cache()
                self.progress.note(f"out of memory: going on with {self.batch_size} images per pass")

    def _compute(self, job: Job) -> None:
        """Compute a job and write its cells."""
        started = time.monotonic()
        facts: dict[str, Any] = {}
        if job[0].averages and job[0].eot == "auto":  # an attacker who averages knows the defence, so the cell is alone
            settled = eot.settle(job[0], self.settings.device, self.batch_size)
            job, facts = (replace(job[0], chosen=settled.draws),), {"eot_auto": settled.as_dict()}
        paths, spent = self._attack(job) if job[0].attack else ({}, Spent.of(Passes.none(len(job[0].dataset))))
        for cell in job:
            result, tables = results(cell, self._clean(cell), paths.get(cell.id, {}), spent)
            facts |= {"seconds": round(time.monotonic() - started, 3), "batch_size": self.batch_size}
            result = {"id": cell.id, **cell.columns, "identity": cell.identity, **result, **facts}
            self.folder.write_cell(cell.id, result, tables, None if cell.attack else self._clean(cell))
            if not cell.attack:
                self.progress.advance(len(cell.dataset))

    def _attack(self, job: Job) -> tuple[dict[str, dict[str, Outcome]], Spent]:
        """What each path of the attacker did, by the cell's id and its name, and the passes that all took."""
        parts: dict[str, dict[str, list[Outcome]]] = {cell.id: defaultdict(list) for cell in job}
        spent, first = [], job[0]
        reference = None
        if first.reference is not None:
            reference = reference_of(first.reference, self.settings.device, first.model.memory_format)
        for batch in self._batches(first, self._attacked_at_once(first)):
            passes = Passes.none(len(batch), self.settings.device)
            for cell, path, outcome in self._outcomes(job, batch, passes, reference):
                parts[cell.id][path].append(outcome)
            spent.append(Spent.of(passes))
            self.progress.advance(len(batch) * len(job) * len(first.epsilons))
        joined = {cell: {path: Outcome.join(found) for path, found in own.items()} for cell, own in parts.items()}
        return joined, Spent.join(spent)

    def _outcomes(
        self, job: Job, batch: Batch, passes: Passes, reference: Reference | None
    ) -> Iterator[tuple[Cell, str, Outcome]]:
        """What every path did to a batch, cell by cell."""
        first = job[0]
        assert first.attack is not None
        if first.attacker == "known-noise":
            yield from ((cell, cell.attacker, known_noise.attack(cell, batch, passes)) for cell in job)
            return
        targets = list(paths(first, batch.ids, passes, reference, self.batch_size))
        choose = len(targets) > 1 and first.stochastic  # the best path is chosen on draws that are not reported
        for path, target in targets:
            budgets = [epsilon.value for epsilon in first.epsilons]
            crafted = craft(first.attack, target, batch.images, batch.labels, budgets)
            for cell in job:
                yield cell, path, self._judged(cell, crafted, batch, choose=choose)

    def _judged(self, cell: Cell, crafted: Crafted, batch: Batch, *, choose: bool) -> Outcome:
        """What became of the crafted images, a pass's worth at a time."""
        clean = self._clean(cell).take(batch.rows)

        def judge(number: int, rows: slice) -> Outcome:
            part, attacked = batch.take(rows), crafted.images[number, rows]
            scores = score_cell(cell, attacked, part.labels, part.ids)
            chosen = score_cell(cell, attacked, part.labels, part.ids, "select") if choose else scores
            crossed = cross(cell, part, attacked, clean.take(rows), scores)
            return Outcome.of(crafted, (number, rows), scores, chosen.count, crossed)

        pieces = even(len(batch), self.batch_size)
        epsilons = range(len(cell.epsilons))
        return Outcome.stack([Outcome.join([judge(number, rows) for rows in pieces]) for number in epsilons])

    def _attacked_at_once(self, cell: Cell) -> int:
        """How many images an attack gets at once: one pass's worth, or several where decided images leave."""
        assert cell.attack is not None
        size = max(1, self.batch_size // cell.gradient_draws)
        if not cell.attack.refills or cell.attacker == "known-noise":
            return size
        return max(size, min(REFILL * size, ROOM // math.prod(cell.dataset.image_shape)))

    def _batches(self, cell: Cell, size: int) -> Iterator[Batch]:
        needed: float | None = None
        for number, rows in enumerate(even(len(cell.dataset), size)):
            held = resident_memory()
            if number == WARM:
                needed = held
            elif needed and held and held > needed:
                give_back_memory()
            yield Batch.of(cell.dataset, rows, self.settings.device, cell.model.memory_format)

    def _clean(self, cell: Cell) -> Scores:
        """The clean scores behind a cell: from memory, from the finished clean cell, or computed."""
        clean = replace(cell, attack=None, attacker="none", epsilons=(), reference=None)
        if clean.id not in self.clean:
            found = self.folder.draws(clean.id)
            if found is None:
                batches = self._batches(clean, self.batch_size)
                found = Scores.join([score_cell(clean, batch.images, batch.labels, batch.ids) for batch in batches])
            self.clean[clean.id] = found
        return self.clean[clean.id]


def reference_of(data: Dataset, device: torch.device, layout: torch.memory_format) -> Reference:
    """All images of a data set to learn from, nothing learnt yet."""
    images = data.images(torch.arange(len(data))).to(device, memory_format=layout)
    return Reference(images, data.labels.to(device), data.ids.to(device), data.classes)
