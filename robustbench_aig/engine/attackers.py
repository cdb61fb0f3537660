"""The attacker's knowledge, as the gradient paths that a cell's attack runs through.

``static`` is the paper's protocol: the bare model with one gate draw, the defence comes afterwards. ``adaptive`` knows
both: it differentiates each stand-in of the defence, averages over gate draws (EOT), and also tries what the gates' own
gradient hides. It can do all that the static attacker can, so that path is among its own. Attacks on gates take one
path: which of several did most would have to be judged by their own metric, not by accuracy. ``known-noise`` knows the
numbers of every scoring draw as well, which no threat model grants: see :mod:`robustbench_aig.engine.known_noise`.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.policy import Gradient
from robustbench_aig.contracts.target import Passes, Reference, Target
from robustbench_aig.engine.plan import Cell


def transfers(cell: Cell) -> bool:
    """Whether the static attacker's images are scored on something else than it attacks: other draws, or a defence."""
    return cell.gating.stochastic or not cell.defense.nothing


def paths(
    cell: Cell, ids: Tensor, passes: Passes, reference: Reference | None = None, at_once: int | None = None
) -> Iterator[tuple[str, Target]]:
    """The named targets that the cell's attacker attacks, one after the other.

    Args:
        cell: says model, gating, defence and attacker.
        ids: (N,) image ids of the batch.
        passes: counters of the batch.
        reference: images that the attack may learn from.
        at_once: images times draws per pass, where the batch may be larger; None for all of it.

    Yields:
        ``(name, target)``; the static attacker has one path, ``static``. Of the known-noise attacker, the paths of the
        first draw.
    """
    if cell.attacker == "known-noise":
        yield from known_paths(cell, ids, passes, 0)
        return
    unaware = replace(_unaware(cell, ids, passes, reference), at_once=at_once)
    gradient: Gradient = "straight-through" if cell.gating.stochastic else "none"
    static = replace(unaware, gate_gradient=gradient, transfer=transfers(cell))
    knowing = replace(unaware, defense=cell.defense, draws=cell.gradient_draws)
    stand_ins = _stand_ins(cell)
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
    if cell.gating.kind == "deterministic" and not cell.defense.nothing:
        yield "no-gate-gradient", replace(strongest, gate_gradient="none")
    if cell.gating.stochastic:
        yield "deterministic-twin", replace(strongest, gating=Gating("deterministic"), transfer=True)


def known_paths(cell: Cell, ids: Tensor, passes: Passes, draw: int) -> Iterator[tuple[str, Target]]:
    """The targets of the attacker who knows the numbers of one scoring draw: arguments and yield as :func:`paths`."""
    knowing = replace(_unaware(cell, ids, passes, None), defense=cell.defense, known=draw)
    for surrogate in _stand_ins(cell):
        yield surrogate or "direct", replace(knowing, surrogate=surrogate)
    if cell.gating.stochastic:
        yield "no-gate-gradient", replace(knowing, surrogate=_stand_ins(cell)[-1], gate_gradient="none")


def _unaware(cell: Cell, ids: Tensor, passes: Passes, reference: Reference | None) -> Target:
    """The bare model, with one draw of its gates."""
    rows = ids.new_tensor(range(len(ids)))
    return Target(cell.model.network, cell.gating, ids, rows, passes, cell.seed, reference=reference, half=cell.half)


def _stand_ins(cell: Cell) -> tuple[str | None, ...]:
    """The stand-ins of the defence to differentiate, strongest last; None for the real thing."""
    return cell.defense.surrogates or (None,)
