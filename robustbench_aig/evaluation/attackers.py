"""The attacker's knowledge, as the gradient paths that a cell's attack runs through.

``static`` is the paper's protocol: the bare model with one gate draw, the defence comes afterwards. ``adaptive`` knows
both: it differentiates each stand-in of the defence, averages over gate draws (EOT), and also tries what the gates' own
gradient hides. It can do all that the static attacker can, so that path is among its own. Attacks on gates take one
path: which of several did most would have to be judged by their own metric, not by accuracy.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.plan import Cell
from robustbench_aig.evaluation.target import Passes, Reference, Target
from robustbench_aig.models.gates import Gradient


def transfers(cell: Cell) -> bool:
    """Whether the static attacker's images are scored on something else than it attacks: other draws, or a defence."""
    return cell.gating.stochastic or cell.defense is not None


def paths(cell: Cell, ids: Tensor, passes: Passes, reference: Reference | None = None) -> Iterator[tuple[str, Target]]:
    """The named targets that the cell's attacker attacks, one after the other.

    Args:
        cell: says model, gating, defence and attacker.
        ids: (N,) image ids of the batch.
        passes: counters of the batch.
        reference: images that the attack may learn from.

    Yields:
        ``(name, target)``; the static attacker has one path, ``static``.
    """
    rows = ids.new_tensor(range(len(ids)))
    unaware = Target(
        cell.model.network, cell.gating, cell.model.gates, ids, rows, passes, cell.seed, reference=reference
    )
    gradient: Gradient = "straight-through" if cell.gating.stochastic else "none"
    static = replace(unaware, gate_gradient=gradient, transfer=transfers(cell))
    knowing = replace(unaware, defense=cell.defense, draws=cell.eot)
    stand_ins: tuple[str | None, ...] = (None,) if cell.defense is None else cell.defense.surrogates or (None,)
    strongest = replace(knowing, surrogate=stand_ins[-1])
    if cell.attacker == "static":
        yield "static", static
        return
    if cell.attack is not None and cell.attack.needs_gates:
        yield "direct", strongest
        return
    yield "static", static
    for surrogate in stand_ins:
        yield surrogate or "direct", replace(knowing, surrogate=surrogate)
    if cell.gating.kind == "deterministic" and cell.defense is not None:
        yield "no-gate-gradient", replace(strongest, gate_gradient="none")
    if cell.gating.stochastic:
        yield "deterministic-twin", replace(strongest, gating=Gating("deterministic"), transfer=True)
