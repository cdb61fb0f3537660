"""What checks look at: the finished cells of a run, and a few images that models and attacks are tried on again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_aig.audit import state
from robustbench_aig.audit.cells import Contestant, oracle
from robustbench_aig.audit.check import Tier
from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.forward import Draws, forward
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.noise import Stage
from robustbench_aig.contracts.target import Passes, Target, mean_margin
from robustbench_aig.contracts.trace import Trace
from robustbench_aig.engine.attackers import paths
from robustbench_aig.engine.plan import Cell, Settings
from robustbench_aig.engine.scoring import score_cell
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.statistics.intervals import Floats

T = TypeVar("T")

CORE_IMAGES = (16, 64)
"""The core tier tries a twentieth of the images, within these limits, which keeps it below a tenth of a PGD sweep."""

PASS_IMAGES = 64
"""Images per pass, all draws counted, unless the sweep's own batch size is smaller."""

Work = Callable[[Target, Tensor, Tensor], Tensor]
"""Maps target, images (n, …) and labels (n,) to a tensor with the images along its first axis."""


class Sample(NamedTuple):
    """Some images of the data set.

    Attributes:
        rows: (n,) where they are in the data set.
        images: (n, C, H, W).
        labels: (n,).
        ids: (n,).
    """

    rows: Tensor
    images: Tensor
    labels: Tensor
    ids: Tensor

    def part(self, rows: slice) -> "Sample":
        """A subset."""
        return Sample(*(tensor[rows] for tensor in self))


class Slope(NamedTuple):
    """Gradients of the margin for the tried images, (N, C, H, W), and logits (N, classes) of the first draw."""

    gradient: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Rerun:
    """An attack repeated on the tried images.

    Attributes:
        images: (E, N, C, H, W).
        correct: (E, N) shares of correct draws.
    """

    images: Tensor
    correct: Floats


class Context:
    """A run under audit.

    Args:
        folder: the run folder.
        cells: as planned.
        settings: of the sweep.
        tier: how much may be spent.
        weights: hash of each model's weights before the sweep, by name.
        images: how many the full tier tries again.
    """

    def __init__(
        self,
        folder: RunFolder,
        cells: Sequence[Cell],
        settings: Settings,
        tier: Tier,
        weights: Mapping[str, str],
        images: int,
    ) -> None:
        self.folder, self.settings, self.tier, self.weights, self._most = folder, settings, tier, weights, images
        finished = set(folder.finished())
        self.planned = [_settled(folder, cell) if cell.id in finished else cell for cell in cells]
        self.cells = [cell for cell in self.planned if cell.id in finished]
        self.slope = cache(self._slope)
        self.rerun = cache(self._rerun)
        self.random_inside = _per_network(self._random_inside)
        self.rewrites = _per_network(self._rewrites)
        self.knowing = cache(_knowing)
        self.unsteady = _per_network(lambda cell: state.unsteady(self, cell))
        self._samples = cache(folder.samples)
        self.result: Callable[[str], dict[str, Any]] = cache(folder.result)

    @cached_property
    def contestants(self) -> list[Contestant]:
        """Every contestant with a finished clean cell."""
        attacked = [cell for cell in self.cells if cell.attack is not None]
        found = []
        for clean in self.cells:
            if clean.attack is None:
                own = [cell for cell in attacked if _contestant(cell) == _contestant(clean)]
                allowed, beyond = (tuple(cell for cell in own if oracle(cell) is kind) for kind in (False, True))
                found.append(Contestant(clean, allowed, beyond))
        return found

    @cached_property
    def steady(self) -> list[Contestant]:
        """Contestants that are functions of the image and of seeded draws; of others, attacks say nothing."""
        return [
            entry
            for entry in self.contestants
            if not self.unsteady(entry.clean) and not self.random_inside(entry.clean)
        ]

    @property
    def at_class(self) -> Iterator[tuple[Cell, Floats]]:
        """Finished attacks on the class of steady contestants and their shares of correct draws, (E, N)."""
        return ((cell, self.correct(cell)) for contestant in self.steady for cell in contestant.at_class)

    def samples(self, cell: Cell) -> pd.DataFrame:
        """One row per epsilon and image."""
        return self._samples(cell.id)

    def correct(self, cell: Cell) -> Floats:
        """(E, N) shares of correct draws at each epsilon; (1, N) for a clean cell."""
        counts = self.samples(cell)["correct"].to_numpy(np.float64)
        return counts.reshape(-1, len(cell.dataset)) / cell.scoring_draws

    @cached_property
    def rows(self) -> Tensor:
        """Rows of the data set that are tried again, evenly spread; ``images`` of them in the full tier."""
        total = len(self.settings.dataset)
        fewest, most = CORE_IMAGES
        wanted = max(fewest, min(most, total // 20)) if self.tier == "core" else self._most
        return torch.linspace(0, total - 1, min(total, wanted)).round().long()

    @property
    def grain(self) -> float:
        """The smallest change in accuracy on the tried images that is more than one image."""
        return 1.5 / len(self.rows)

    def pick(self, rows: Tensor) -> Sample:
        """The images in given rows of the data set, on the device of the sweep."""
        data, device = self.settings.dataset, self.settings.device
        images = data.images(rows).to(device, memory_format=torch.channels_last)
        return Sample(rows, images, data.labels[rows].to(device), data.ids[rows].to(device))

    @cached_property
    def tried(self) -> Sample:
        """The images in :attr:`rows`."""
        return self.pick(self.rows)

    def each(self, cell: Cell, path: str, work: Work, draws: int | None = None, sample: Sample | None = None) -> Tensor:
        """Do ``work`` on the tried images as one path of the cell's attacker sees them, a few images at a time.

        Args:
            cell: names the attacker and whom he attacks.
            path: one of :meth:`paths`.
            work: what to do.
            draws: the number that one gradient averages over, in place of the path's own.
            sample: other images than the tried ones.
        """
        some = sample or self.tried
        many = (draws or cell.gradient_draws) if cell.averages else 1
        size = max(1, min(PASS_IMAGES, self.settings.batch_size or PASS_IMAGES) // many)
        parts = []
        for start in range(0, len(some.rows), size):
            part = some.part(slice(start, start + size))
            target = dict(paths(cell, part.ids, Passes.none(len(part.ids), part.ids.device)))[path]
            if draws is not None:
                target = replace(target, draws=draws)
            parts.append(work(target, part.images, part.labels))
        return torch.cat(parts)

    def paths(self, cell: Cell) -> list[str]:
        """The gradient paths of the cell's attacker."""
        ids = self.tried.ids[:1]
        return [name for name, _ in paths(cell, ids, Passes.none(1, ids.device))]

    def _slope(self, cell: Cell, path: str) -> Slope | str:
        """The gradients of one path, or the message of what prevents them."""

        def work(target: Target, images: Tensor, labels: Tensor) -> Tensor:
            _, gradient, view = target.gradient(images, lambda view: mean_margin(view, labels))
            return torch.cat([gradient.flatten(1), view.logits[0].float()], 1)

        try:
            both = self.each(cell, path, work)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            return str(error)
        images = self.tried.images
        pixels = images[0].numel()
        return Slope(both[:, :pixels].view_as(images), both[:, pixels:])

    def score(self, cell: Cell, images: Tensor, stage: Stage = "score", sample: Sample | None = None) -> Floats:
        """(N,) shares of correct draws of images that stand for the sample (the tried ones), scored as the sweep
        scores."""
        some, counts = sample or self.tried, []
        size = min(PASS_IMAGES, self.settings.batch_size or PASS_IMAGES)
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            counts.append(score_cell(cell, images[part], some.labels[part], some.ids[part], stage).count)
        return np.concatenate(counts) / cell.scoring_draws

    def view(self, cell: Cell, images: Tensor, ids: Tensor, draw: int = 0) -> tuple[Tensor, Trace | None]:
        """Logits and trace of one scoring draw of the bare model, which gets a copy of the images."""
        with torch.no_grad():
            view = forward(cell.model.network, cell.gating, images.clone(), Draws(cell.seed, "score", ids, [draw]))
        return view.logits[0], None if view.trace is None else view.trace.map(lambda part: part[0])

    def _rerun(self, cell: Cell) -> Rerun:
        """Attack the tried images as the sweep does: every path, and per image the one that is right least often.

        The cell need not be of the sweep: checks change steps, restarts or draws.
        """
        assert cell.attack is not None
        attack, budgets, names = cell.attack, [epsilon.value for epsilon in cell.epsilons], self.paths(cell)
        stage: Stage = "select" if len(names) > 1 and cell.stochastic else "score"
        best: list[Tensor] = []
        chosen: list[Floats] = []
        for name in names:

            def work(target: Target, images: Tensor, labels: Tensor) -> Tensor:
                return craft(attack, target, images, labels, budgets).images.transpose(0, 1)

            crafted = self.each(cell, name, work).transpose(0, 1)
            shares = [self.score(cell, images, stage) for images in crafted]
            if not best:
                best, chosen = list(crafted), shares
                continue
            for number, images in enumerate(crafted):
                better = shares[number] < chosen[number]
                where = torch.from_numpy(better).to(images.device)[:, None, None, None]
                best[number] = torch.where(where, images, best[number])
                chosen[number] = np.where(better, shares[number], chosen[number])
        return Rerun(torch.stack(best), np.stack([self.score(cell, images) for images in best]))

    def _random_inside(self, cell: Cell) -> bool:
        """Whether logits of the same images under the same noise differ from pass to pass."""
        some = self.tried.part(slice(PASS_IMAGES))
        first, *others = (_unit(self.view(cell, some.images, some.ids)[0]) for _ in range(5))
        return any(float((first - other).norm(dim=1).max()) > 1e-4 for other in others)

    def _rewrites(self, cell: Cell) -> bool:
        """Whether a forward pass changes the images that it is given."""
        given = self.tried.images[: state.ALONE].clone()
        with torch.no_grad():
            cell.model.network(given)
        return not torch.equal(given, self.tried.images[: state.ALONE])


def _settled(folder: RunFolder, cell: Cell) -> Cell:
    """The cell with the number of draws that ``--eot auto`` came to in the sweep."""
    return replace(cell, chosen=folder.result(cell.id)["eot"]) if cell.averages and cell.eot == "auto" else cell


def _knowing(contestant: Contestant) -> Cell:
    """A cell for the attacker who knows model and defence, whether or not the sweep has one."""
    return replace(contestant.clean, attacker="adaptive")


def _contestant(cell: Cell) -> tuple[Any, ...]:
    return cell.model.name, cell.gating, cell.defense.label, cell.seed


def _per_network(function: Callable[[Cell], T]) -> Callable[[Cell], T]:
    """The function, computed once for all cells with the same model and gating."""
    known: dict[tuple[str, Gating], T] = {}

    def look_up(cell: Cell) -> T:
        key = cell.model.name, cell.gating
        if key not in known:
            known[key] = function(cell)
        return known[key]

    return look_up


def _unit(logits: Tensor) -> Tensor:
    known = logits.nan_to_num()
    unit: Tensor = known / known.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit
