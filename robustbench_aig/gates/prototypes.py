"""The graph as a classifier: how often each class opens each gate, whose graph an image's looks like, and a monitor of
odd graphs."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from robustbench_aig.contracts.scores import Scores
from robustbench_aig.statistics.intervals import critical
from robustbench_aig.statistics.measure import Measure, share

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

SMOOTHING = 0.5
"""Decisions added to the open and to the closed ones of a class of average size: every graph then has a likelihood."""

AT_ONCE = 4096
"""Images whose likelihoods under all classes are held at the same time."""


@dataclass(frozen=True)
class Prototypes:
    """How often each gate opens for each class, (classes, L), and the naive Bayes reading of graphs by it."""

    rates: Array

    @classmethod
    def of(cls, opened: Bools, labels: Labels, classes: int) -> "Prototypes":
        """From decisions (S, N, L) and classes (N,); a class without images gets the rates of all.

        The same share is added to every class, large or small: a gate that does not depend on the class then has equal
        rates in all, and tells nothing.
        """
        chance = opened.mean(0) if len(labels) else np.full((1, opened.shape[2]), 0.5)
        totals = np.zeros((classes, opened.shape[2]))
        np.add.at(totals, labels, chance[: len(labels)])
        sizes = np.bincount(labels, minlength=classes)[:, None]
        rates = np.where(sizes > 0, totals / np.maximum(sizes, 1), chance.mean(0))
        added = SMOOTHING * max(1, int((sizes > 0).sum())) / (len(opened) * max(1, len(labels)))
        return cls((rates + added) / (1 + 2 * added))

    def nearest(self, opened: Bools) -> Labels:
        """(S, N) most likely class of each graph (S, N, L); the first of several."""
        flat = opened.reshape(-1, opened.shape[2]).astype(float)
        parts = [self._likelihood(flat[row : row + AT_ONCE]).argmax(1) for row in range(0, len(flat), AT_ONCE)]
        nearest: Labels = np.concatenate(parts).reshape(opened.shape[:2])
        return nearest

    def surprise(self, opened: Bools, classes: npt.NDArray[np.integer]) -> Array:
        """(N,) negative log-likelihood of graphs (S, N, L) under one class each (N,), as a mean over draws."""
        chance, rates = opened.mean(0), self.rates[classes]
        surprise: Array = -(chance * np.log(rates) + (1 - chance) * np.log1p(-rates)).sum(1)
        return surprise

    def _likelihood(self, graphs: Array) -> Array:
        likelihood: Array = graphs @ (np.log(self.rates) - np.log1p(-self.rates)).T + np.log1p(-self.rates).sum(1)
        return likelihood


class Reader:
    """Prototypes of either half of the clean images, each of which reads the images of the other half.

    Args:
        clean: scores of the clean images.
        labels: (N,).
        classes: how many there are.

    Attributes:
        before: (S, N) the nearest prototype of each clean graph.
    """

    def __init__(self, clean: Scores, labels: Labels, classes: int) -> None:
        self.clean, self.labels = clean, labels
        self._half = np.arange(len(labels)) % 2
        self._fits = [
            Prototypes.of(clean.open[:, self._half == part], labels[self._half == part], classes) for part in (1, 0)
        ]
        self.before = self.nearest(clean)

    def nearest(self, scores: Scores) -> Labels:
        """(S, N) the class whose prototype is nearest to each graph."""
        return np.where(self._half == 0, self._fits[0].nearest(scores.open), self._fits[1].nearest(scores.open))

    def hits_of(self, attacked: Scores, aim: int) -> Measure:
        """How often the attacked graph's nearest prototype is the class ``aim``, over images of other classes."""
        return share((self.nearest(attacked) == aim)[:, self.labels != aim].mean(0))

    def detection(self, attacked: Scores) -> Measure:
        """Area under the ROC curve of a graph monitor, which asks how unlikely an image's graphs are for its predicted
        class.

        0.5 is blind, 1 tells every attacked image from every clean one. The interval is over images, each of which
        contributes its clean and its attacked version together (Obuchowski 1997), after adding one image that is told
        apart and one that is mistaken, so that graphs which did not move do not claim certainty.
        """
        before, after = self._surprise(self.clean), self._surprise(attacked)
        n = len(before)
        ranks = rankdata(np.concatenate([before, after]))
        # How many of the other kind an image's version is above, ties half.
        above = (ranks[n:] - rankdata(after)) / n
        below = 1 - (ranks[:n] - rankdata(before)) / n
        area = float(above.mean())
        padded = np.concatenate([above + below - 2 * area, [-1.0, 1.0]])
        half = critical(0.95) * float(padded.std(ddof=1)) / math.sqrt(len(padded))
        return Measure(area, max(0.0, area - half), min(1.0, area + half), n)

    def _surprise(self, scores: Scores) -> Array:
        both = [fit.surprise(scores.open, scores.vote) for fit in self._fits]
        return np.where(self._half == 0, *both)
