"""Whole-graph measures of what an attack did to the gates: distances, compute, classes, mediation and detection.

Rates and flips by layer are in :mod:`robustbench_aig.evaluation.execution`. Clean and attacked scores are compared
draw by draw, under the same noise, unless a measure says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.scoring import Scores
from robustbench_aig.evaluation.target import DefenseLike, defense_noise, run
from robustbench_aig.models.gates import Forced
from robustbench_aig.models.macs import Costs
from robustbench_aig.models.noise import Stage

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SMOOTHING = 0.5
"""Added to the counts of open and closed gates, so that a gate that never moved has a likelihood."""


def distances(clean: Scores, attacked: Scores, costs: Costs) -> dict[str, float]:
    """How far graphs moved, as means over draws and images.

    ``hamming`` is the share of gates that differ, ``hamming_max`` that of the image that moved most, ``hamming_macs``
    the share of the skippable multiply-adds that differ, ``graph_kept`` how often not one gate differs, and
    ``hamming_null`` the distance between two draws on the clean image.
    """
    moved = clean.open != attacked.open
    weights = (costs.blocks / costs.blocks.sum()).numpy()
    by_image = moved.mean((0, 2))
    return {
        "hamming": float(by_image.mean()),
        "hamming_max": float(by_image.max()),
        "hamming_macs": float((moved @ weights).mean()),
        "graph_kept": float((~moved.any(2)).mean()),
        "hamming_null": float((clean.open != np.roll(clean.open, 1, 0)).mean()),
    }


def compute(clean: Scores, attacked: Scores, costs: Costs) -> dict[str, float]:
    """Multiply-adds before and after, each image's mean over draws.

    ``macs_ratio`` is attacked over clean (``_p95`` and ``_max`` over images); ``recovered_up`` the share of what
    gates saved that is spent again, (C' - C) / (ceiling - C), ``recovered_down`` the share of what gates spend that
    is saved, (C - C') / (C - floor). Images with nothing to recover (C at the ceiling, or at the floor) are left out
    and counted.
    """
    before, after = clean.macs, attacked.macs
    floor = costs.floor + costs.gates
    ratio = after / before
    full, bare = before >= costs.ceiling * (1 - 1e-9), before <= floor * (1 + 1e-9)
    return {
        "macs_ratio": float(ratio.mean()),
        "macs_ratio_p95": float(np.quantile(ratio, 0.95)),
        "macs_ratio_max": float(ratio.max()),
        "recovered_up": _mean(((after - before) / (costs.ceiling - before + full))[~full]),
        "recovered_down": _mean(((before - after) / (before - floor + bare))[~bare]),
        "at_ceiling": int(full.sum()),
        "at_floor": int(bare.sum()),
    }


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


@dataclass(frozen=True)
class Prototypes:
    """How often each gate opens for each class, (classes, L), and the naive Bayes reading of graphs by it."""

    rates: Array

    @classmethod
    def of(cls, opened: npt.NDArray[np.bool_], labels: Labels, classes: int) -> "Prototypes":
        """From decisions (S, N, L) and classes (N,); a class without images gets rates of one half."""
        draws = len(opened)
        count = np.array([(labels == number).sum() for number in range(classes)])[:, None] * draws
        total = np.stack([opened[:, labels == number].sum((0, 1)) for number in range(classes)])
        return cls((total + SMOOTHING) / (count + 2 * SMOOTHING))

    def likelihood(self, opened: npt.NDArray[np.bool_]) -> Array:
        """(S, N, classes) log-likelihood of graphs (S, N, L)."""
        values: Array = opened.astype(float) @ np.log(self.rates).T + (~opened).astype(float) @ np.log1p(-self.rates).T
        return values

    def nearest(self, opened: npt.NDArray[np.bool_]) -> Labels:
        """(S, N) most likely class of each graph."""
        nearest: Labels = self.likelihood(opened).argmax(2)
        return nearest


def crossfit(clean: Scores, labels: Labels, classes: int) -> tuple[list[Prototypes], npt.NDArray[np.int64]]:
    """Prototypes of either half of the images, and which of the two (N,) does not know an image."""
    half = np.arange(len(labels)) % 2
    fits = [Prototypes.of(clean.open[:, half == part], labels[half == part], classes) for part in (1, 0)]
    return fits, half


def prototypes(clean: Scores, attacked: Scores, labels: Labels, classes: int) -> dict[str, float]:
    """The graph as a classifier: how often its nearest prototype is the true class, before and after.

    ``prototype_moved`` is how often the nearest prototype is another after the attack. Prototypes never saw the image
    they judge.
    """
    fits, half = crossfit(clean, labels, classes)
    before, after = (_judge(fits, half, scores) for scores in (clean, attacked))
    return {
        "prototype_hit_clean": float((before == labels).mean()),
        "prototype_hit_adv": float((after == labels).mean()),
        "prototype_moved": float((before != after).mean()),
    }


def prototype_target(clean: Scores, attacked: Scores, labels: Labels, classes: int, aim: int) -> float:
    """How often the attacked graph's nearest prototype is the class ``aim``, over images of other classes."""
    fits, half = crossfit(clean, labels, classes)
    return _mean((_judge(fits, half, attacked) == aim)[:, labels != aim].astype(float))


def _judge(fits: list[Prototypes], half: npt.NDArray[np.int64], scores: Scores) -> Labels:
    return np.where(half == 0, fits[0].nearest(scores.open), fits[1].nearest(scores.open))


def detection(clean: Scores, attacked: Scores, labels: Labels, classes: int) -> float:
    """Area under the ROC curve of a graph monitor: log-likelihood of an image's graphs under the class it is taken for.

    0.5 is blind, 1 tells every attacked image from every clean one. The monitor is fitted to clean images other than
    those it judges.
    """
    fits, half = crossfit(clean, labels, classes)

    def suspicion(scores: Scores) -> Array:
        both = np.stack([fit.likelihood(scores.open).mean(0) for fit in fits])
        images = np.arange(len(labels))
        return -both[half, images, scores.vote]

    values = np.concatenate([suspicion(clean), suspicion(attacked)])
    return float(roc_auc_score(np.repeat([0, 1], len(labels)), values))


def information(
    opened: npt.NDArray[np.bool_], labels: Labels, *, seed: int, permutations: int = 100
) -> dict[str, float]:
    """Mutual information of class and gates in bits, summed over gates, with what shuffled classes give.

    Each gate's information uses its mean decision over draws as the chance of being open, with the Miller-Madow
    correction for the number of images. ``information_p`` is the share of permutations that give as much.

    Args:
        opened: (S, N, L).
        labels: (N,).
        seed: of the permutations.
        permutations: how many.
    """
    chance = opened.mean(0)
    generator = np.random.default_rng(seed)
    value = _information(chance, labels)
    null = np.array([_information(chance, generator.permutation(labels)) for _ in range(permutations)])
    return {
        "information": value,
        "information_null": float(null.mean()),
        "information_p": float((1 + (null >= value).sum()) / (1 + permutations)),
    }


def _information(chance: Array, labels: Labels) -> float:
    names, sizes = np.unique(labels, return_counts=True)
    share = sizes / len(labels)
    rates = np.stack([chance[labels == name].mean(0) for name in names])
    bits = _entropy(chance.mean(0)) - share @ _entropy(rates)
    # Miller-Madow: the plug-in entropies are too small by (cells - 1) / 2N each
    bias = (len(names) - 1) / (2 * len(labels) * np.log(2))
    return float((bits - bias).sum())


def _entropy(rate: Array) -> Array:
    rate = np.clip(rate, 1e-12, 1 - 1e-12)
    bits: Array = -(rate * np.log2(rate) + (1 - rate) * np.log2(1 - rate))
    return bits


@dataclass(frozen=True)
class Mediation:
    """Share of draws (N,) in which an image is classified correctly, with features and gates of the clean or attacked
    image.

    Attributes:
        clean: features and gates of the clean image.
        features: features of the attacked image along the graph of the clean one.
        gates: features of the clean image along the graph of the attacked one.
        both: features and gates of the attacked image.
    """

    clean: Array
    features: Array
    gates: Array
    both: Array

    def table(self) -> Mapping[str, float]:
        """Mean accuracies, and the accuracy that the attack takes through the features and through the gates alone."""
        means = {name: float(getattr(self, name).mean()) for name in ("clean", "features", "gates", "both")}
        return means | {"direct": means["clean"] - means["features"], "indirect": means["clean"] - means["gates"]}


@torch.no_grad()
def mediation(
    model: nn.Module,
    gating: Gating,
    gates: int,
    defense: DefenseLike | None,
    images: Tensor,
    attacked: Tensor,
    labels: Tensor,
    ids: Tensor,
    *,
    seed: int,
    draws: int,
    stage: Stage = "score",
) -> Mediation:
    """Classify with features and gates crossed, under the same gate and defence noise; four passes per draw.

    Args:
        model: a ConvNet-AIG in eval mode.
        gating: how its gates decide.
        gates: how many it has.
        defense: what stands before it.
        images: (N, C, H, W) clean.
        attacked: likewise.
        labels: (N,).
        ids: (N,) image ids, which name the noise.
        seed: of the noise.
        draws: S; pass 1 where nothing is random.
        stage: the stream of draws.

    Raises:
        ValueError: the gating is ``expected``, which forces no graph.
    """
    if gating.kind not in ("deterministic", "stochastic"):
        raise ValueError(f"mediation needs gates that decide, not gating '{gating.name}'")
    total = torch.zeros(4, len(images), dtype=torch.float64, device=images.device)
    for draw in range(draws):
        policy = gating.policy(gates, seed, stage, ids, [draw])
        seen = []
        for pixels in (images, attacked):
            noise = None if defense is None else defense_noise(defense, seed, stage, ids, [draw], pixels)
            seen.append(pixels if defense is None else defense(pixels, noise))
        (own, before), (other, after) = (run(model, pixels, policy) for pixels in seen)
        assert before is not None
        assert after is not None
        features, _ = run(model, seen[1], Forced(before.open))
        through, _ = run(model, seen[0], Forced(after.open))
        total += torch.stack([logits.argmax(1) == labels for logits in (own, features, through, other)])
    parts = (total / draws).cpu().numpy()
    return Mediation(*parts)


def measures(
    clean: Scores, attacked: Scores, labels: Labels, classes: int, costs: Costs, *, seed: int = 0
) -> dict[str, float]:
    """Every measure of this module that needs only scores, by column name.

    Args:
        clean: scores of the clean images.
        attacked: of the attacked ones, under the same noise.
        labels: (N,).
        classes: how many there are.
        costs: of the network.
        seed: of the permutations.
    """
    return {
        **distances(clean, attacked, costs),
        **compute(clean, attacked, costs),
        **prototypes(clean, attacked, labels, classes),
        "monitor_auc": detection(clean, attacked, labels, classes),
        **{f"{name}_clean": value for name, value in information(clean.open, labels, seed=seed).items()},
        **{f"{name}_adv": value for name, value in information(attacked.open, labels, seed=seed).items()},
    }
