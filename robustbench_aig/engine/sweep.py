"""The sweep engine: runs the planned cells that are not finished, shares what they share, and writes each when it is
done.

Cells that differ only in the defence share one crafting where the attacker does not know the defence (``static``);
all cells of one model, gating, defence and seed share one clean scoring.
"""

import math
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_aig.contracts.crafting import Crafted, craft
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.parts import even
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.contracts.target import Passes, Reference
from robustbench_aig.data.dataset import Dataset
from robustbench_aig.device import give_back_memory, resident_memory
from robustbench_aig.engine import eot, gate_table, known_noise, rows
from robustbench_aig.engine.attackers import paths, transfers
from robustbench_aig.engine.crossing import cross
from robustbench_aig.engine.outcomes import join, worst
from robustbench_aig.engine.plan import Cell, Settings, plan
from robustbench_aig.engine.provenance import provenance
from robustbench_aig.engine.rows import Outcome, Spent
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.errors import Prerequisite, Unwritable, UserError, described
from robustbench_aig.gates import execution
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
    cells = plan(settings)
    folder = RunFolder(out)
    ids = [cell.id for cell in cells]
    folder.refuse_foreign(ids)
    with folder.locked():
        folder.discard_unfinished()
        skipped = set(folder.finished())
        run = {
            "config": config or {},
            "cells": [_listed(cell) for cell in cells],
            "provenance": provenance(settings),
        }
        folder.write_run({**run, "audit": [], "claim_valid": None})
        weights = {model.name: weights_hash(model.network) for model in settings.models}
        engine = _Engine(settings, folder, progress or Silent())
        failed = engine.run([cell for cell in cells if cell.id not in skipped])
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
    iterated = cell.attack is not None and cell.attack.iterated
    return {"id": cell.id, "label": cell.label, "iterated": iterated, "identity": cell.identity}


def _shares_crafting(cell: Cell) -> tuple[Any, ...]:
    """Cells with equal keys are attacked once: everything but a defence that the attacker does not know.

    An iterated attack stops where the bare model is fooled, unless its images are for another; then it runs apart.
    """
    unaware = cell.attacker in ("static", "none")
    defense = None if unaware else cell.defense.label
    apart = unaware and cell.attack is not None and cell.attack.iterated and transfers(cell)
    return (cell.seed, cell.model.name, cell.gating, cell.attack, cell.attacker, defense, apart)


class _Engine:
    def __init__(self, settings: Settings, folder: RunFolder, progress: Progress) -> None:
        self.settings, self.folder, self.progress = settings, folder, progress
        self.batch_size = settings.batch_size or DEFAULT_BATCH.get(settings.device.type, 128)
        self.clean: dict[str, Scores] = {}
        self.settled: dict[str, eot.Settled] = {}

    def run(self, cells: list[Cell]) -> dict[str, str]:
        """Compute the cells; returns the failures by label. A disk that is full or images that cannot be read end the
        sweep at once."""
        failed: dict[str, str] = {}
        self.progress.start(sum(len(cell.dataset) * max(1, len(cell.epsilons)) for cell in cells), "sweep")
        for _, group in groupby(cells, key=_shares_crafting):
            job = list(group)
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

    def _with_room(self, job: list[Cell]) -> None:
        """Run a job; on a lack of memory halve the batch and start the job again (only if the size was ours to
        choose)."""
        while True:
            try:
                with frozen(job[0].model.network):
                    return self._job(job)
            except torch.OutOfMemoryError:
                if self.settings.batch_size is not None or self.batch_size == 1:
                    raise UserError(
                        f"out of memory at {self.batch_size} images per pass; set a smaller --batch-size."
                    ) from None
                self.batch_size //= 2
                torch.cuda.empty_cache()
                self.progress.note(f"out of memory: going on with {self.batch_size} images per pass")

    def _job(self, job: list[Cell]) -> None:
        started, attack = time.monotonic(), job[0].attack
        if attack is None:
            for cell in job:
                self._write(cell, [], None, started)
            return
        parts: dict[str, list[list[dict[str, Outcome]]]] = {cell.id: [] for cell in job}
        spent: list[Spent] = []
        if job[0].averages and job[0].eot == "auto":
            job = [self._settled(cell) for cell in job]
        reference = self._reference(job[0])
        scored = 0
        for images, labels, ids in self._batches(job[0], self._attacked_at_once(job[0])):
            passes = Passes.none(len(images), images.device)
            outcomes: dict[str, list[dict[str, Outcome]]] = {cell.id: [{} for _ in cell.epsilons] for cell in job}
            clean = {cell.id: self._clean(cell).take(slice(scored, scored + len(images))) for cell in job}
            scored += len(images)
            targets = list(paths(job[0], ids, passes, reference, self.batch_size))
            if job[0].attacker == "known-noise":
                targets = []
                for cell in job:
                    found = known_noise.attack(cell, images, labels, ids, passes)
                    outcomes[cell.id] = [{cell.attacker: outcome} for outcome in found]
            choose = len(targets) > 1 and job[0].stochastic  # the best path is chosen on draws that are not reported
            for name, target in targets:
                crafted = craft(attack, target, images, labels, [epsilon.value for epsilon in job[0].epsilons])
                for cell in job:
                    judged = self._judged(cell, crafted, images, labels, ids, clean[cell.id], choose=choose)
                    for own, outcome in zip(outcomes[cell.id], judged, strict=True):
                        own[name] = outcome
            spent.append(Spent(*(getattr(passes, field.name).cpu().numpy() for field in fields(Spent))))
            for cell in job:
                parts[cell.id].append(outcomes[cell.id])
            self.progress.advance(len(images) * len(job) * len(job[0].epsilons))
        total = Spent(*(np.concatenate([getattr(part, field.name) for part in spent]) for field in fields(Spent)))
        for cell in job:
            joined = [
                {name: join([batch[number][name] for batch in parts[cell.id]]) for name in parts[cell.id][0][number]}
                for number in range(len(cell.epsilons))
            ]
            self._write(cell, joined, total, started)

    def _attacked_at_once(self, cell: Cell) -> int:
        """How many images an attack gets at once: one pass's worth, or several where decided images leave."""
        assert cell.attack is not None
        size = max(1, self.batch_size // cell.gradient_draws)
        if not cell.attack.refills or cell.attacker == "known-noise":
            return size
        return max(size, min(REFILL * size, ROOM // math.prod(cell.dataset.image_shape)))

    def _judged(
        self, cell: Cell, crafted: Crafted, images: Tensor, labels: Tensor, ids: Tensor, clean: Scores, *, choose: bool
    ) -> list[Outcome]:
        """What became of the crafted images, one outcome per epsilon, a pass's worth at a time."""

        def judge(number: int, rows: slice) -> Outcome:
            attacked = crafted.images[number, rows]
            scores = score_cell(cell, attacked, labels[rows], ids[rows])
            chosen = score_cell(cell, attacked, labels[rows], ids[rows], "select") if choose else scores
            linf, l2, invalid = (
                part[number, rows].cpu().numpy() for part in (crafted.linf, crafted.l2, crafted.invalid)
            )
            crossed = cross(cell, images[rows], attacked, labels[rows], ids[rows], clean.take(rows), scores)
            return Outcome(cell.epsilons[number], scores, chosen.count, linf, l2, invalid, crossed)

        pieces = even(len(images), self.batch_size)
        return [join([judge(number, rows) for rows in pieces]) for number in range(len(cell.epsilons))]

    def _settled(self, cell: Cell) -> Cell:
        """The cell with the number of draws per gradient that ``auto`` comes to."""
        self.settled[cell.id] = found = eot.settle(cell, self.settings.device, self.batch_size)
        return replace(cell, chosen=found.draws)

    def _batches(self, cell: Cell, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        device, every = self.settings.device, torch.arange(len(cell.dataset))
        needed: float | None = None
        for number, part in enumerate(even(len(every), size)):
            index = every[part]
            held = resident_memory()
            if number == WARM:
                needed = held
            elif needed and held and held > needed:
                give_back_memory()
            images = cell.dataset.images(index).to(device, memory_format=cell.model.memory_format)
            yield images, cell.dataset.labels[index].to(device), cell.dataset.ids[index].to(device)

    def _reference(self, cell: Cell) -> Reference | None:
        """The images that the cell's attack learns from; made anew for every job, because attacks remember in it."""
        if cell.reference is None:
            return None
        return reference_of(cell.reference, self.settings.device, cell.model.memory_format)

    def _clean(self, cell: Cell) -> Scores:
        """The clean scores behind a cell: from memory, from the finished clean cell, or computed."""
        clean = replace(cell, attack=None, attacker="none", epsilons=(), reference=None)
        if clean.id not in self.clean:
            if (self.folder.cell(clean.id) / "draws.npz").exists():
                self.clean[clean.id] = rows.unpack(self.folder.draws(clean.id))
            else:
                batches = self._batches(clean, self.batch_size)
                parts = [score_cell(clean, images, labels, ids) for images, labels, ids in batches]
                self.clean[clean.id] = Scores.join(parts)
        return self.clean[clean.id]

    def _write(self, cell: Cell, outcomes: list[dict[str, Outcome]], spent: Spent | None, started: float) -> None:
        clean = self._clean(cell)
        result: dict[str, Any] = {"id": cell.id, **cell.columns, "identity": cell.identity}
        table: pd.DataFrame | None = None
        gates: pd.DataFrame | None = None
        if spent is None:
            result["rows"] = [rows.summary(cell, "none", clean, None, None)]
            best: list[Outcome] = []
            self.progress.advance(len(cell.dataset))
        else:
            best = [worst(choices) for choices in outcomes]
            judged: list[tuple[str, Outcome]] = [(cell.attacker, outcome) for outcome in best]
            if len(outcomes[0]) > 1:
                judged += [(f"{cell.attacker}/{name}", choices[name]) for name in outcomes[0] for choices in outcomes]
            result["rows"] = [rows.summary(cell, attacker, clean, outcome, spent) for attacker, outcome in judged]
            result["eot"] = cell.gradient_draws
            if cell.id in self.settled:
                result["eot_auto"] = self.settled[cell.id].as_dict()
            result["measures"] = [rows.measures(outcome, spent) for outcome in best]
            table = self._execution(cell, clean, best)
            gates = gate_table.table(cell, clean, judged)
        result["seconds"] = round(time.monotonic() - started, 3)
        result["batch_size"] = self.batch_size
        draws = rows.pack(clean) if cell.attack is None else None
        self.folder.write_cell(cell.id, result, rows.samples(cell, clean, best), table, draws, gates)

    def _execution(self, cell: Cell, clean: Scores, outcomes: list[Outcome]) -> pd.DataFrame | None:
        if cell.model.layout is None:
            return None
        masks = execution.groups(cell.dataset.labels.numpy(), cell.dataset.classes, cell.dataset.categories)
        frames = []
        for outcome in outcomes:
            frame = execution.table(clean, outcome.scores, masks, cell.model.layout)
            keys = {**cell.columns, "eps": outcome.epsilon.value, "seed": cell.seed}
            for position, (name, value) in enumerate(keys.items()):
                frame.insert(position, name, value)
            frames.append(frame.drop(columns="dataset"))
        return pd.concat(frames, ignore_index=True)


def reference_of(data: Dataset, device: torch.device, layout: torch.memory_format) -> Reference:
    """All images of a data set to learn from, nothing learnt yet."""
    images = data.images(torch.arange(len(data))).to(device, memory_format=layout)
    return Reference(images, data.labels.to(device), data.ids.to(device), data.classes)
