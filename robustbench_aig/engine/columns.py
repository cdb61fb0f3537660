"""The columns of ``summary.csv`` with its flags, and of ``samples.parquet``: a new one is a function here, and no more.

A function of the summary gives numbers for a row. One of the samples gives an array (N,) for its images, (N, L) for a
list per image, or one value for all.

Reports read headings and units here, so importing this imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robustbench_aig.contracts.columns import Columns
from robustbench_aig.gates import execution
from robustbench_aig.statistics import intervals

if TYPE_CHECKING:
    from robustbench_aig.contracts.epsilons import Epsilon
    from robustbench_aig.contracts.records import Bools
    from robustbench_aig.contracts.scores import Scores
    from robustbench_aig.contracts.units import Layout
    from robustbench_aig.engine.outcomes import Outcome, Spent
    from robustbench_aig.engine.plan import Cell


@dataclass(frozen=True)
class Row:
    """What a row of a cell's tables is about.

    Attributes:
        cell: its cell.
        attacker: the cell's, or one path of it.
        epsilon: the budget; :data:`CLEAN` without an attack.
        clean: scores of the clean images.
        outcome: of the attack at this epsilon.
        spent: its passes.
    """

    cell: Cell
    attacker: str
    epsilon: Epsilon
    clean: Scores
    outcome: Outcome
    spent: Spent

    @property
    def scores(self) -> Scores:
        """Of the images after the attack."""
        return self.outcome.scores

    @property
    def layout(self) -> Layout:
        """The decisions of a dynamic network."""
        assert self.cell.model.layout is not None
        return self.cell.model.layout

    def flips(self, before: Bools, after: Bools) -> float:
        """Mean share of decisions that differ between routes (S, N, L)."""
        return float(np.nanmean(execution.flips(self.layout, before, after)))

    def share_of_asked(self, images: Bools) -> float:
        """Share of some images (N,) of those that gradients were asked for."""
        asked = self.spent.gradients > 0
        return float((asked & images).sum() / max(1, asked.sum()))


def decides(row: Row) -> bool:
    """Whether the model is a dynamic network."""
    return row.cell.model.layout is not None


FLAGS: Columns[Row] = Columns()
"""Shares of images that are worth a look."""

SUMMARY: Columns[Row] = Columns()
SAMPLES: Columns[Row] = Columns()
flag, column, sample = FLAGS, SUMMARY, SAMPLES
gated = partial(column, section="gates", needs=decides)


def summary(row: Row) -> dict[str, Any]:
    """A row of ``summary.csv``; what is not a number is None."""
    values = SUMMARY.values(row)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def samples(rows: Sequence[Row]) -> pa.Table:
    """The table ``samples.parquet`` of a cell, for its rows of the attacker himself."""
    return pa.concat_tables([_images(row) for row in rows]).combine_chunks()


@flag()
def invalid(row: Row) -> float:
    """Images that the attack returned outside their ball or [0, 1], not finite or all black."""
    return float(row.outcome.invalid.mean())


@flag()
def unperturbed(row: Row) -> float:
    """Images that the attack returned unchanged."""
    return float((row.outcome.linf == 0).mean())


@flag()
def nonfinite_logits(row: Row) -> float:
    """Images that got logits with NaN or infinity in some pass."""
    return float(((row.scores.nonfinite > 0) | (row.spent.unclear > 0)).mean())


@flag()
def zero_gradient(row: Row) -> float:
    """Of the images that gradients were asked for, those whose every gradient was zero in all pixels."""
    return row.share_of_asked(row.spent.stalled == row.spent.gradients)


@flag()
def nonfinite_gradient(row: Row) -> float:
    """Of the same images, those that got a gradient with NaN or infinity."""
    return row.share_of_asked(row.spent.nonfinite > 0)


@column(names="model, dataset, gating, defense, attack, attacker, norm")
def names(row: Row) -> dict[str, str]:
    """The cell; clean rows have `attack` = `none` and `eps` = 0. `attacker` is `static`, `adaptive` (per-image minimum
    over its paths), one path such as `adaptive/soft`, or `known-noise`."""
    return {**row.cell.columns, "attacker": row.attacker}


@column(names="eps, eps_label")
def budget(row: Row) -> dict[str, Any]:
    """Budget in pixel units of [0, 1], and its label such as `8/255`."""
    return {"eps": row.epsilon.value, "eps_label": row.epsilon.label}


@column(names="seed, n, draws, eot")
def settings(row: Row) -> dict[str, int]:
    """Seed, images, scoring draws S (1 where nothing is random), and draws K that one gradient of the adaptive attacker
    averages over (its static path: 1; clean rows: 0)."""
    cell = row.cell
    draws = {"draws": cell.scoring_draws, "eot": cell.gradient_draws if cell.attack else 0}
    return {"seed": cell.seed, "n": len(cell.dataset), **draws}


@column("accuracy", names="accuracy, lo, hi", section="random")
def accuracy(row: Row) -> dict[str, float]:
    """Expected accuracy of one draw, with a 95 % interval over images."""
    found = intervals.accuracy(row.scores.count, row.cell.scoring_draws)
    return {"accuracy": found.value, "lo": found.lo, "hi": found.hi}


@column("vote", section="random")
def vote_accuracy(row: Row) -> float:
    """Accuracy of the class with the largest mean softmax over S draws."""
    return float((row.scores.vote == row.cell.dataset.labels.numpy()).mean())


@column("worst", names="worst_accuracy, worst_accuracy_clean", section="random")
def worst(row: Row) -> dict[str, float]:
    """Share of images right in all S draws, attacked and clean."""
    draws, states = row.cell.scoring_draws, {"": row.scores, "_clean": row.clean}
    return {f"worst_accuracy{end}": intervals.worst_at(scores.count, draws, draws) for end, scores in states.items()}


@gated("executed", names="exec_rate_clean, exec_rate_adv")
def exec_rate(row: Row) -> dict[str, float]:
    """Mean share of units that run."""
    return {"exec_rate_clean": float(row.clean.open.mean()), "exec_rate_adv": float(row.scores.open.mean())}


@gated("MACs", names="macs_clean, macs_adv", unit="macs")
def macs(row: Row) -> dict[str, float]:
    """Mean multiply-adds per image."""
    return {"macs_clean": float(row.clean.macs.mean()), "macs_adv": float(row.scores.macs.mean())}


@gated("flipped")
def flip_rate(row: Row) -> float:
    """Share of decisions that differ from those on the clean image *under the same noise*."""
    return row.flips(row.clean.open, row.scores.open)


@gated("without attack")
def flip_rate_null(row: Row) -> float:
    """Share that differs between two draws of the clean image."""
    return row.flips(row.clean.open, execution.other_draw(row.clean.open))


@gated()
def flip_rate_independent(row: Row) -> float:
    """Share that differs between a draw of the clean and another of the attacked image."""
    return row.flips(execution.other_draw(row.clean.open), row.scores.open)


@column("forwards", unit="number")
def forwards_per_image(row: Row) -> float:
    """Forward passes spent on crafting, for all epsilons of the cell together; what `--eot auto` tried is counted
    apart."""
    return float(row.spent.forwards.mean())


@column("backwards", unit="number")
def backwards_per_image(row: Row) -> float:
    """Backward passes likewise."""
    return float(row.spent.backwards.mean())


@column("flags", unit="text")
def flags(row: Row) -> str:
    """Shares of images that are worth a look, below."""
    found = FLAGS.values(row) if row.cell.attack else {}
    return ";".join(f"{name}={share:.4f}" for name, share in found.items() if share > 0)


@column()
def cell(row: Row) -> str:
    """The cell's id."""
    return row.cell.id


@sample(names="id, label, eps, eps_label")
def image(row: Row) -> dict[str, Any]:
    """The image and the budget."""
    data = row.cell.dataset
    return {"id": data.ids.numpy(), "label": data.labels.numpy().astype(np.int16), **budget(row)}


@sample(names="prediction_clean, prediction")
def prediction(row: Row) -> dict[str, Any]:
    """The vote over draws, before and after."""
    return {"prediction_clean": row.clean.vote, "prediction": row.scores.vote}


@sample(names="correct_clean, correct")
def correct(row: Row) -> dict[str, Any]:
    """In how many of the S draws the image was right."""
    return {"correct_clean": row.clean.count, "correct": row.scores.count}


@sample()
def nonfinite(row: Row) -> Any:
    """In how many draws logits of the attacked image were NaN or infinite."""
    return row.scores.nonfinite


@sample(names="linf, l2")
def size(row: Row) -> dict[str, Any]:
    """Size of the perturbation."""
    return {"linf": row.outcome.linf.astype(np.float32), "l2": row.outcome.l2.astype(np.float32)}


@sample()
def radius(row: Row) -> Any:
    """Clean cells behind Gaussian smoothing: the L2 radius, in pixel values, within which the vote of infinitely many
    draws keeps the image's label; each is wrong with a chance of at most 0.001 (Cohen et al. 2019). Ten draws certify
    next to nothing, a thousand (`--draws 1000`) up to 2.5 standard deviations of the noise."""
    radii = None if row.cell.attack else row.cell.defense.radii(row.clean.count, row.cell.scoring_draws)
    return None if radii is None else np.asarray(radii, np.float32)


@sample(names="macs_clean, macs_adv", needs=decides)
def image_macs(row: Row) -> dict[str, Any]:
    """Mean multiply-adds."""
    return {"macs_clean": row.clean.macs, "macs_adv": row.scores.macs}


@sample(names="open_clean, open_adv, flips", needs=decides)
def units(row: Row) -> dict[str, Any]:
    """Per unit, in how many draws it ran, and in how many both images reached it and one ran it; at one draw, the
    graphs."""
    before, after = row.clean.open, row.scores.open
    found = {"open_clean": before, "open_adv": after, "flips": row.layout.unit_changes(before, after)}
    return {name: _draws(verdicts) for name, verdicts in found.items()}


@sample(needs=decides)
def graph_kept(row: Row) -> Any:
    """In how many draws not one unit differs."""
    return _draws(~(row.clean.open != row.scores.open).any(2))


@sample(names="correct_features, correct_gates", needs=lambda row: row.outcome.crossed is not None)
def crossed(row: Row) -> dict[str, Any]:
    """In how many of `mediation_draws` draws the image was right with features, or decisions, of the attacked one
    alone."""
    return {f"correct_{part}": _draws(getattr(row.outcome.crossed, part)) for part in ("features", "gates")}


def _draws(verdicts: Bools) -> Any:
    """In how many of the draws (S, …)."""
    return verdicts.sum(0).astype(np.uint16)


def _images(row: Row) -> pa.Table:
    n, values = len(row.cell.dataset), SAMPLES.values(row)
    return pa.table({name: _array(np.asarray(value), n) for name, value in values.items() if value is not None})


def _array(values: npt.NDArray[Any], n: int) -> Any:
    """A value for all N images, or an array (N,) or (N, L)."""
    if values.ndim < 2:
        return pa.array(np.broadcast_to(values, n))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
