"""The columns of ``summary.csv`` with its flags, and of ``samples.parquet``: a new one is a function here, and no more.

A function of the summary gives numbers for a row. One of the samples gives an array (N,) for its images, (N, L) for a
list per image, or one value for all.

Reports read headings and units here, so importing this imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


FLAGS: Columns[Row] = Columns()
SUMMARY: Columns[Row] = Columns()
SAMPLES: Columns[Row] = Columns()
flag, column, sample = FLAGS, SUMMARY, SAMPLES


def summary(row: Row) -> dict[str, Any]:
    """A row of ``summary.csv``; what is not a number is None."""
    values = SUMMARY.values(row)
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def samples(rows: Sequence[Row]) -> pa.Table:
    """The table ``samples.parquet`` of a cell, for its rows of the attacker himself."""
    return pa.concat_tables([_images(row) for row in rows]).combine_chunks()


def decides(row: Row) -> bool:
    """Whether the model is a dynamic network."""
    return row.cell.model.layout is not None


@flag("invalid", "images that the attack returned outside their ball or [0, 1], not finite or all black")
def invalid(row: Row) -> float:
    return float(row.outcome.invalid.mean())


@flag("unperturbed", "images that the attack returned unchanged")
def unperturbed(row: Row) -> float:
    return float((row.outcome.linf == 0).mean())


@flag("zero_gradient", "of the images that gradients were asked for, those whose every gradient was zero in all pixels")
def zero_gradient(row: Row) -> float:
    asked = row.spent.gradients > 0
    return float((asked & (row.spent.stalled == row.spent.gradients)).sum() / max(1, asked.sum()))


@column(
    "model, dataset, gating, defense, attack, attacker, norm",
    "the cell; clean rows have `attack` = `none` and `eps` = 0. `attacker` is `static`, `adaptive` (per-image minimum "
    "over its paths), one path such as `adaptive/soft`, or `known-noise`",
)
def names(row: Row) -> dict[str, str]:
    return {**row.cell.columns, "attacker": row.attacker}


@column("eps, eps_label", "budget in pixel units of [0, 1], and its label such as `8/255`")
def budget(row: Row) -> dict[str, Any]:
    return {"eps": row.epsilon.value, "eps_label": row.epsilon.label}


@column("seed, n, draws", "seed, images, scoring draws S (1 where nothing is random)")
def sizes(row: Row) -> dict[str, int]:
    return {"seed": row.cell.seed, "n": len(row.cell.dataset), "draws": row.cell.scoring_draws}


@column("eot", "draws K that one gradient of the adaptive attacker averages over (its static path: 1); 0 on clean rows")
def eot(row: Row) -> int:
    return row.cell.gradient_draws if row.cell.attack else 0


@column(
    "accuracy, lo, hi",
    "expected accuracy of one draw, with a 95 % interval over images",
    heading="accuracy",
    section="random",
)
def accuracy(row: Row) -> dict[str, float]:
    found = intervals.accuracy(row.scores.count, row.cell.scoring_draws)
    return {"accuracy": found.value, "lo": found.lo, "hi": found.hi}


@column(
    "vote_accuracy",
    "accuracy of the class with the largest mean softmax over S draws",
    heading="vote",
    section="random",
)
def vote_accuracy(row: Row) -> float:
    return float((row.scores.vote == row.cell.dataset.labels.numpy()).mean())


@column(
    "worst_accuracy, worst_accuracy_clean",
    "share of images right in all S draws, attacked and clean",
    heading="worst",
    section="random",
)
def worst_accuracy(row: Row) -> dict[str, float]:
    draws, states = row.cell.scoring_draws, {"": row.scores, "_clean": row.clean}
    return {f"worst_accuracy{end}": intervals.worst_at(scores.count, draws, draws) for end, scores in states.items()}


@column(
    "exec_rate_clean, exec_rate_adv", "mean share of units that run", heading="executed", section="gates", needs=decides
)
def exec_rate(row: Row) -> dict[str, float]:
    return {"exec_rate_clean": float(row.clean.open.mean()), "exec_rate_adv": float(row.scores.open.mean())}


@column(
    "macs_clean, macs_adv",
    "mean multiply-adds per image",
    heading="MACs",
    unit="macs",
    section="gates",
    needs=decides,
)
def macs(row: Row) -> dict[str, float]:
    return {"macs_clean": float(row.clean.macs.mean()), "macs_adv": float(row.scores.macs.mean())}


@column(
    "flip_rate",
    "share of decisions that differ from those on the clean image *under the same noise*",
    heading="flipped",
    section="gates",
    needs=decides,
)
def flip_rate(row: Row) -> float:
    return row.flips(row.clean.open, row.scores.open)


@column(
    "flip_rate_null",
    "share that differs between two draws of the clean image",
    heading="without attack",
    section="gates",
    needs=decides,
)
def flip_rate_null(row: Row) -> float:
    return row.flips(row.clean.open, execution.other_draw(row.clean.open))


@column(
    "flip_rate_independent",
    "share that differs between a draw of the clean and another of the attacked image",
    needs=decides,
)
def flip_rate_independent(row: Row) -> float:
    return row.flips(execution.other_draw(row.clean.open), row.scores.open)


@column(
    "forwards_per_image",
    "forward passes spent on crafting, for all epsilons of the cell together; what `--eot auto` tried is counted apart",
    heading="forwards",
    unit="number",
)
def forwards(row: Row) -> float:
    return float(row.spent.forwards.mean())


@column("backwards_per_image", "backward passes likewise", heading="backwards", unit="number")
def backwards(row: Row) -> float:
    return float(row.spent.backwards.mean())


@column("flags", "shares of images that are worth a look, below", heading="flags", unit="text")
def flags(row: Row) -> str:
    found = FLAGS.values(row) if row.cell.attack else {}
    return ";".join(f"{name}={share:.4f}" for name, share in found.items() if share > 0)


@column("cell", "its id")
def cell(row: Row) -> str:
    return row.cell.id


@sample("id, label, eps, eps_label", "the image and the budget")
def image(row: Row) -> dict[str, Any]:
    data = row.cell.dataset
    return {"id": data.ids.numpy(), "label": data.labels.numpy().astype(np.int16), **budget(row)}


@sample("prediction_clean, prediction", "the vote over draws, before and after")
def prediction(row: Row) -> dict[str, Any]:
    return {"prediction_clean": row.clean.vote, "prediction": row.scores.vote}


@sample("correct_clean, correct", "in how many of the S draws the image was right")
def correct(row: Row) -> dict[str, Any]:
    return {"correct_clean": row.clean.count, "correct": row.scores.count}


@sample("linf, l2", "size of the perturbation")
def size(row: Row) -> dict[str, Any]:
    return {"linf": row.outcome.linf.astype(np.float32), "l2": row.outcome.l2.astype(np.float32)}


@sample(
    "radius",
    "clean cells behind Gaussian smoothing: the L2 radius, in pixel values, within which the vote of infinitely many "
    "draws keeps the image's label; each is wrong with a chance of at most 0.001 (Cohen et al. 2019). Ten draws "
    "certify next to nothing, a thousand (`--draws 1000`) up to 2.5 standard deviations of the noise",
    needs=lambda row: row.cell.attack is None and row.cell.defense is not None,
)
def radius(row: Row) -> Any:
    assert row.cell.defense is not None
    radii = row.cell.defense.radii(row.clean.count, row.cell.scoring_draws)
    return None if radii is None else np.asarray(radii, np.float32)


@sample("macs_clean, macs_adv", "mean multiply-adds", needs=decides)
def image_macs(row: Row) -> dict[str, Any]:
    return {"macs_clean": row.clean.macs, "macs_adv": row.scores.macs}


@sample("open_clean, open_adv", "per unit, in how many draws it ran; at one draw, the graph", needs=decides)
def opened(row: Row) -> dict[str, Any]:
    return {"open_clean": _draws(row.clean.open), "open_adv": _draws(row.scores.open)}


@sample("flips", "per unit, in how many draws both images reached it and one ran it", needs=decides)
def flips(row: Row) -> Any:
    return _draws(row.layout.unit_changes(row.clean.open, row.scores.open))


@sample("graph_kept", "in how many draws not one unit differs", needs=decides)
def graph_kept(row: Row) -> Any:
    return _draws(~(row.clean.open != row.scores.open).any(2))


@sample(
    "correct_features, correct_gates",
    "in how many of `mediation_draws` draws the image was right with features, or decisions, of the attacked one alone",
    needs=lambda row: row.outcome.crossed is not None,
)
def crossed(row: Row) -> dict[str, Any]:
    assert row.outcome.crossed is not None
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
