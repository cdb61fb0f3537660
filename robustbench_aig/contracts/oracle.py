"""Which graphs misclassify an image whose pixels are not touched: the limit of attacks through the gates alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_aig.contracts.enumeration import LIMIT, enumerate_routes
from robustbench_aig.contracts.margin import finite, margin
from robustbench_aig.contracts.network import Dynamic
from robustbench_aig.contracts.policy import Deterministic, Forced

BEAM, DEPTH = 8, 4
AT_ONCE = 4096


@dataclass(frozen=True)
class Oracle:
    """Graphs to aim at, for N images.

    Attributes:
        graphs: (N, T, L) the T best, those that misclassify first, then the nearest to it.
        wrong: (N, T) bool: the image is misclassified along the graph.
        reach: (N, T) how far margins lie on the wrong side along the graph, summed over the gates, in units of
            ``scale``.
        complete: every graph was tried, so an image with no misclassifying graph cannot be fooled through its gates.
    """

    graphs: Tensor
    wrong: Tensor
    reach: Tensor
    complete: bool

    @property
    def possible(self) -> Tensor:
        """(N,) bool: some graph misclassifies the image. If not and the search was complete, that is a proof."""
        return self.wrong.any(1)


@torch.no_grad()
def oracle(model: Dynamic, images: Tensor, labels: Tensor, keep: int, scale: Tensor | None = None) -> Oracle:
    """Search the routes of images (N, C, H, W): all of them up to :data:`.enumeration.LIMIT`, else a beam of flips.

    The beam starts at the graph of the deterministic gates and flips one gate at a time, keeping the 8 graphs of
    largest margin towards a wrong class, four flips deep; finding nothing then proves nothing.

    Args:
        model: in eval mode.
        images: what the model sees.
        labels: (N,).
        keep: T, at most.
        scale: (N, L) what a unit of margin costs at each gate, such as one over the norm of its gradient; by default 1.
    """
    layout = model.layout
    gates, complete = len(layout), layout.count <= LIMIT
    cost = images.new_ones(len(images), gates) if scale is None else scale
    if complete:
        parts = [_all(model, images[rows], labels[rows], keep, cost[rows]) for rows in _chunks(images, layout.count)]
    else:
        parts = [_beam(model, images[rows], labels[rows], keep, cost[rows]) for rows in _chunks(images, BEAM * gates)]
    graphs, wrong, reach = (torch.cat([part[number] for part in parts]) for number in range(3))
    return Oracle(graphs, wrong, reach, complete)


def _chunks(images: Tensor, copies: int) -> tuple[Tensor, ...]:
    chunks: tuple[Tensor, ...] = torch.arange(len(images), device=images.device).split(max(1, AT_ONCE // copies))
    return chunks


def _all(model: Dynamic, images: Tensor, labels: Tensor, keep: int, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    every = enumerate_routes(model, images)
    graphs = every.trace.open.transpose(0, 1)
    return _best(graphs, every.trace.margin.transpose(0, 1), every.logits.transpose(0, 1), labels, keep, cost)


def _beam(model: Dynamic, images: Tensor, labels: Tensor, keep: int, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    trace = model.traced(images, Deterministic())[1]
    n, units = trace.open.shape
    beam, found = trace.open[:, None], []
    for _ in range(DEPTH):
        forced = model.layout.neighbours(beam).flatten(1, 2)
        repeated = images.repeat_interleave(forced.shape[1], 0)
        logits, along = model.traced(repeated, Forced(forced.flatten(0, 1)))
        graphs, logits = along.open.view(n, -1, units), logits.view(n, forced.shape[1], -1)
        found.append((graphs, along.margin.view(n, -1, units), logits))
        top = margin(logits.transpose(0, 1), labels).T.topk(min(BEAM, graphs.shape[1]), 1).indices
        beam = graphs.gather(1, top[..., None].expand(-1, -1, units))
    graphs, margins, logits = (torch.cat([level[number] for level in found], 1) for number in range(3))
    return _best(graphs, margins, logits, labels, keep, cost)


def _best(
    graphs: Tensor, margins: Tensor, logits: Tensor, labels: Tensor, keep: int, cost: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    reach = (((1 - 2 * graphs) * margins).relu() * cost[:, None]).sum(2)
    wrong = (logits.argmax(2) != labels[:, None]) & finite(logits)
    order = torch.where(wrong, reach, reach + 1e6).argsort(1)[:, :keep]
    chosen = graphs.gather(1, order[..., None].expand(-1, -1, graphs.shape[2]))
    return chosen, wrong.gather(1, order), reach.gather(1, order)
