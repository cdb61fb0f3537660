"""The law of routers: which k of E units are chosen, and how probably, where Gumbel noise is added to scores and the
largest win (Gumbel top-k; Kool et al. 2019). The units are then drawn one after the other without replacement, each
with its softmax among those that are left (Plackett-Luce)."""

import math
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

MANY = 1024
"""Most choices that a router's chances are summed over; beyond, they are approximated."""


def exact(experts: int, chosen: int) -> bool:
    """Whether the chances of a router are exact."""
    return chosen == 1 or math.comb(experts, chosen) <= MANY


def choices(scores: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """Every choice of a router.

    Args:
        scores: (…, E).
        chosen: k.

    Returns:
        The C choices, (C, E) of 0 and 1, and their log-probabilities (…, C): P(S) is the sum over the units of S that
        may be drawn last (Kool et al. 2019, Eq. 7, summed by the recurrence over subsets).
    """
    log_prob = scores.new_zeros(*scores.shape[:-1], 1)
    for size in range(1, chosen + 1):
        taken, units, rest = (part.to(scores.device) for part in _sets(scores.shape[-1], size))
        left = scores[..., None, :].masked_fill(taken, -torch.inf).logsumexp(-1)
        log_prob = ((log_prob - left)[..., rest] + scores[..., units]).logsumexp(-1)
    return _sets(scores.shape[-1], chosen + 1)[0].to(scores), log_prob


@cache
def _sets(experts: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Subsets one smaller than ``size``, (B, E) bool; the units of the C subsets of that size, (C, size); and for each
    of these units the number of the smaller subset without it, (C, size)."""
    smaller = list(combinations(range(experts), size - 1))
    number = {subset: place for place, subset in enumerate(smaller)}
    larger = list(combinations(range(experts), size))
    taken = torch.zeros(len(smaller), experts, dtype=torch.bool)
    for place, subset in enumerate(smaller):
        taken[place, list(subset)] = True
    without = [[number[subset[:at] + subset[at + 1 :]] for at in range(size)] for subset in larger]
    return taken, torch.tensor(larger, dtype=torch.int64), torch.tensor(without, dtype=torch.int64)


def chances(scores: Tensor, chosen: int) -> Tensor:
    """(…, E) chance of each unit to be among the k chosen, for scores (…, E): the softmax where one is; an
    approximation, min(1, k softmax), where there are more than :data:`MANY` choices."""
    if chosen == 1 or not exact(scores.shape[-1], chosen):
        return (chosen * scores.softmax(-1)).clamp_max(1.0)
    bits, log_prob = choices(scores, chosen)
    return log_prob.exp() @ bits


def log_choice(scores: Tensor, taken: Tensor, chosen: int) -> Tensor:
    """(…,) log-probability of the choices ``taken`` (…, E) for scores (…, E); beyond :data:`MANY` choices an
    approximation, that of drawing each with replacement."""
    if chosen == 1 or not exact(scores.shape[-1], chosen):
        return (taken * scores.log_softmax(-1)).sum(-1)
    bits, log_prob = choices(scores, chosen)
    return torch.where((taken[..., None, :] == bits).all(-1), log_prob, 0.0).sum(-1)


def route_divergence(scores: Tensor, others: Tensor, chosen: int) -> Tensor:
    """(…,) Kullback-Leibler divergence of the choices for scores (…, E) from those for ``others`` (…, E); beyond
    :data:`MANY` choices an approximation, that of drawing each with replacement."""
    if chosen == 1 or not exact(scores.shape[-1], chosen):
        own, other = scores.log_softmax(-1), others.log_softmax(-1)
        return chosen * (own.exp() * (own - other)).sum(-1)
    own, other = choices(scores, chosen)[1], choices(others, chosen)[1]
    return (own.exp() * (own - other)).sum(-1)


def route_margin(scores: Tensor, chosen: int) -> Tensor:
    """(…, E) by how much each score leads the best that is not chosen, or trails the worst that is."""
    top = scores.topk(chosen + 1, -1).values
    last, next_ = top[..., chosen - 1 : chosen], top[..., chosen:]
    return torch.where(scores >= last, scores - next_, scores - last)


def route_scores(margin: Tensor, chosen: int) -> Tensor:
    """(…, E) the scores, up to a constant, of which :func:`route_margin` gave the margins (…, E)."""
    gap = margin.topk(chosen, -1).values[..., chosen - 1 :]
    return torch.where(margin > 0, margin, margin + gap)
