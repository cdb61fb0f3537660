"""From the scores of a finished cell to its rows: the summary, the samples and the measures that the audit reads."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robustbench_aig.contracts.epsilons import Epsilon
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.engine.plan import Cell
from robustbench_aig.gates import execution
from robustbench_aig.gates.mediation import Crossed
from robustbench_aig.statistics.intervals import accuracy, worst_at

CLEAN = Epsilon(Fraction(0))


@dataclass(frozen=True)
class Outcome:
    """What one attack path did at one epsilon, for all images.

    Attributes:
        epsilon: the budget.
        scores: after the attack.
        selection: (N,) correct draws in the stream that chooses between paths.
        linf: (N,) perturbation size.
        l2: (N,) likewise.
        invalid: (N,) bool, images that failed the checks of :mod:`robustbench_aig.contracts.crafting`.
        crossed: verdicts with features and graphs of clean and attacked image crossed; None where no graph is run, or
            each draw has an image of its own.
    """

    epsilon: Epsilon
    scores: Scores
    selection: npt.NDArray[np.uint16]
    linf: npt.NDArray[np.float32]
    l2: npt.NDArray[np.float32]
    invalid: npt.NDArray[np.bool_]
    crossed: Crossed | None = None


@dataclass(frozen=True)
class Spent:
    """Passes per image, (N,) each; see :class:`robustbench_aig.contracts.target.Passes`."""

    forwards: npt.NDArray[np.int64]
    backwards: npt.NDArray[np.int64]
    gradients: npt.NDArray[np.int64]
    stalled: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]
    unclear: npt.NDArray[np.int64]


def summary(cell: Cell, attacker: str, clean: Scores, outcome: Outcome | None, spent: Spent | None) -> dict[str, Any]:
    """One row of ``summary.csv``; without an outcome, the clean row.

    ``worst_accuracy`` is the share of images that are right in every one of the S draws; ``flip_rate`` compares clean
    and attacked image under the same noise, ``flip_rate_null`` two draws on the clean image.
    """
    epsilon = outcome.epsilon if outcome else CLEAN
    scores = outcome.scores if outcome else clean
    draws = cell.scoring_draws
    interval = accuracy(scores.count, draws)
    labels = cell.dataset.labels.numpy()
    gated = cell.model.layout is not None
    row: dict[str, Any] = {
        **cell.columns,
        "attacker": attacker,
        "eps": epsilon.value,
        "eps_label": epsilon.label,
        "seed": cell.seed,
        "n": len(labels),
        "draws": draws,
        "eot": cell.gradient_draws if outcome else 0,
        "accuracy": interval.value,
        "lo": interval.lo,
        "hi": interval.hi,
        "vote_accuracy": float((scores.vote == labels).mean()),
        "worst_accuracy": worst_at(scores.count, draws, draws),
        "worst_accuracy_clean": worst_at(clean.count, draws, draws),
        "exec_rate_clean": float(clean.open.mean()) if gated else None,
        "exec_rate_adv": float(scores.open.mean()) if gated else None,
        "macs_clean": float(clean.macs.mean()) if gated else None,
        "macs_adv": float(scores.macs.mean()) if gated else None,
        "flip_rate": _flip_rate(cell, clean.open, scores.open),
        "flip_rate_null": _flip_rate(cell, clean.open, execution.other_draw(clean.open)),
        "flip_rate_independent": _flip_rate(cell, execution.other_draw(clean.open), scores.open),
        "forwards_per_image": float(spent.forwards.mean()) if spent else 0.0,
        "backwards_per_image": float(spent.backwards.mean()) if spent else 0.0,
        "flags": ";".join(_flags(outcome, spent)) if outcome and spent else "",
        "cell": cell.id,
    }
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _flip_rate(cell: Cell, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float | None:
    layout = cell.model.layout
    return None if layout is None else float(np.nanmean(execution.flips(layout, before, after)))


def measures(outcome: Outcome, spent: Spent) -> dict[str, float]:
    """Shares in [0, 1] that the audit reads: of images that were invalid, returned unperturbed, or got logits with NaN
    or infinity in some pass; of images that gradients were asked for, those that got only zeros, or NaN or infinity."""
    asked = spent.gradients > 0
    blind = asked & (spent.stalled == spent.gradients)
    total = max(1, int(asked.sum()))
    return {
        "invalid": float(outcome.invalid.mean()),
        "unperturbed": float((outcome.linf == 0).mean()),
        "nonfinite_logits": float(((outcome.scores.nonfinite > 0) | (spent.unclear > 0)).mean()),
        "zero_gradient": float(blind.sum() / total),
        "nonfinite_gradient": float((asked & (spent.nonfinite > 0)).sum() / total),
    }


def _flags(outcome: Outcome, spent: Spent) -> list[str]:
    return [f"{name}={share:.4f}" for name, share in measures(outcome, spent).items() if share > 0]


def samples(cell: Cell, clean: Scores, outcomes: list[Outcome]) -> pa.Table:
    """The rows of ``samples.parquet``: one per image and epsilon (the clean cell has epsilon 0 only)."""
    n = len(cell.dataset)
    if not outcomes:
        zero = np.zeros(n, np.float32)
        outcomes = [Outcome(CLEAN, clean, clean.count, zero, zero, np.zeros(n, bool))]
    times = len(outcomes)
    columns: dict[str, Any] = {
        "id": np.tile(cell.dataset.ids.numpy(), times),
        "label": np.tile(cell.dataset.labels.numpy().astype(np.int16), times),
        "eps": np.repeat([outcome.epsilon.value for outcome in outcomes], n),
        "eps_label": np.repeat([outcome.epsilon.label for outcome in outcomes], n),
        "prediction_clean": np.tile(clean.vote, times),
        "prediction": np.concatenate([outcome.scores.vote for outcome in outcomes]),
        "correct_clean": np.tile(clean.count, times),
        "correct": np.concatenate([outcome.scores.count for outcome in outcomes]),
        "nonfinite": np.concatenate([outcome.scores.nonfinite for outcome in outcomes]),
        "linf": np.concatenate([outcome.linf for outcome in outcomes]).astype(np.float32),
        "l2": np.concatenate([outcome.l2 for outcome in outcomes]).astype(np.float32),
    }
    arrays = {name: pa.array(values) for name, values in columns.items()}
    radii = None if cell.attack else cell.defense.radii(clean.count, cell.scoring_draws)
    if radii is not None:
        arrays["radius"] = pa.array(np.asarray(radii, np.float32))
    if cell.model.layout is not None:
        arrays["macs_clean"] = pa.array(np.tile(clean.macs, times))
        arrays["macs_adv"] = pa.array(np.concatenate([outcome.scores.macs for outcome in outcomes]))
        arrays["open_clean"] = _counts([clean.open] * times)
        arrays["open_adv"] = _counts([outcome.scores.open for outcome in outcomes])
        layout = cell.model.layout
        moved = [clean.open != outcome.scores.open for outcome in outcomes]
        arrays["flips"] = _counts([layout.unit_changes(clean.open, outcome.scores.open) for outcome in outcomes])
        arrays["graph_kept"] = pa.array(np.concatenate([(~part.any(2)).sum(0).astype(np.uint16) for part in moved]))
    crossings = [outcome.crossed for outcome in outcomes if outcome.crossed is not None]
    if crossings:
        for name in ("features", "gates"):
            counts = [getattr(crossed, name).sum(0).astype(np.uint16) for crossed in crossings]
            arrays[f"correct_{name}"] = pa.array(np.concatenate(counts))
    return pa.table(arrays)


def _counts(parts: list[npt.NDArray[np.bool_]]) -> pa.FixedSizeListArray:
    """(S, N, L) decisions per epsilon as a column of L counts of draws per image."""
    counts = np.concatenate([part.sum(0).astype(np.uint16) for part in parts])
    return pa.FixedSizeListArray.from_arrays(pa.array(counts.reshape(-1)), counts.shape[1])


def pack(clean: Scores) -> dict[str, npt.NDArray[Any]]:
    """The clean scores as small arrays for ``draws.npz``."""
    return {
        "correct": np.packbits(clean.correct),
        "open": np.packbits(clean.open),
        "shape": np.array(clean.open.shape),
        "vote": clean.vote,
        "nonfinite": clean.nonfinite,
        "prob": clean.prob,
        "macs": clean.macs,
    }


def unpack(arrays: dict[str, npt.NDArray[Any]]) -> Scores:
    """The inverse of :func:`pack`."""
    s, n, layers = (int(size) for size in arrays["shape"])
    correct = np.unpackbits(arrays["correct"], count=s * n).reshape(s, n).astype(bool)
    opened = np.unpackbits(arrays["open"], count=s * n * layers).reshape(s, n, layers).astype(bool)
    nonfinite = arrays.get("nonfinite", np.zeros(n, np.uint16))  # runs of older versions did not count
    return Scores(correct, arrays["vote"], nonfinite, opened, arrays["prob"], arrays["macs"])
