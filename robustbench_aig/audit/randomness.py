"""R: what random gates do to the attack, and whether anything is left of what they seem to gain."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, groupby

import torch
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, defended, telling, uses_gradient
from robustbench_aig.audit.check import Result
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.pairs import partners
from robustbench_aig.audit.steps import ascend, per_pixel
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.margin import margin
from robustbench_aig.contracts.network import run, training_flag
from robustbench_aig.contracts.noise import Stage, uniform
from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.target import Target
from robustbench_aig.statistics.comparisons import compare, strongest_difference

FROZEN_STEPS = 10
STAGES: tuple[Stage, ...] = ("craft", "select", "score", "start", "defend-craft", "defend-select", "defend-score")


def inside(context: Context) -> Iterator[Result]:
    """R1: the model draws no random numbers of its own: five passes under the same noise agree (AutoAttack's 1e-4)."""
    for contestant in context.contestants:
        text = (
            "the model gives other logits in every pass over the same images: it draws random numbers that no seed "
            "names, and no "
            "attack averages over; turn the randomness into a gate policy or a defence that is given its noise."
        )
        random = context.random_inside(contestant.clean)
        yield Result("FAIL" if random else "PASS", text if random else "", contestant.clean.id)


def frozen(context: Context) -> Iterator[Result]:
    """R2: with one known draw of the gates, an attack gets as far as with deterministic gates."""
    for contestant in context.steady:
        cells = [cell for cell in contestant.attacked if uses_gradient(cell)]
        if not contestant.clean.gating.stochastic or not cells:
            continue
        cell = cells[0]
        assert cell.attack is not None
        epsilon = cell.epsilons[telling(cell, context.correct(cell))]
        size = per_pixel(epsilon.value, cell.attack.norm, context.images[0].numel())
        bare = replace(contestant.clean, defense=None, attacker="static")

        def known(target: Target, images: Tensor, labels: Tensor, size: float = size) -> Tensor:
            return _survives(replace(target, gradient_stage="score", fixed_noise=True), images, labels, size)

        def twin(target: Target, images: Tensor, labels: Tensor, size: float = size) -> Tensor:
            return _survives(replace(target, gating=Gating("deterministic")), images, labels, size)

        one, other = (context.each(bare, "static", work).double().cpu().numpy() for work in (known, twin))
        excess = float(one.mean() - other.mean())
        worse = excess > 0.02 and compare(one, other, seed=0, alternative="greater").p_value < 0.05
        text = (
            f"under one known draw of the gates accuracy stays {excess:.1%} above that of deterministic gates at "
            f"{epsilon.label}: the "
            "attack fails even without randomness; check how gate decisions pass gradients."
        )
        yield Result("FAIL" if worse else "PASS", text, cell.id, excess, 0.02)


def _survives(target: Target, images: Tensor, labels: Tensor, size: float) -> Tensor:
    """(N,) whether images are still right after an attack, on the draw that it differentiated."""
    found = ascend(target, images, labels, size, FROZEN_STEPS)
    return margin(target.view(found, target.gradient_stage, [0]).logits[0], labels) < 0


def gate_gap(context: Context) -> Iterator[Result]:
    """R3: how much of the one-draw number is noise in the gradient: static minus adaptive."""
    for contestant in context.steady:
        if contestant.clean.gating.stochastic and not defended(contestant.clean):
            yield from static_gap(context, contestant, "the noise of a single gate draw", "--attacker adaptive")


def static_gap(context: Context, contestant: Contestant, hides: str, remedy: str) -> Iterator[Result]:
    """Static minus adaptive accuracy of each attack; a static row without its adaptive one is an upper bound only."""
    for cell in contestant.attacked:
        if cell.attacker != "static" or not uses_gradient(cell):
            continue
        adaptive = [
            other for other in contestant.attacked if other.attack is cell.attack and other.attacker == "adaptive"
        ]
        if not adaptive:
            text = f"the attacker does not know of {hides}: this accuracy is an upper bound only; add {remedy}."
            yield Result("WARN", text, cell.id)
            continue
        gap, number = strongest_difference(context.correct(cell), context.correct(adaptive[0]))
        label = cell.epsilons[number].label
        text = f"{gap.value:.1%} of the static accuracy at {label} is {hides}: read the adaptive row in its place."
        yield Result("WARN" if gap.lo > 0 else "PASS", text, cell.id, gap.value, 0.0)


def streams(context: Context) -> Iterator[Result]:
    """R4: crafting and scoring draws share no number, and there are ten or more to score on."""
    random = [contestant for contestant in context.steady if contestant.random]
    for contestant in random[:1]:
        cell, ids = contestant.clean, context.ids[:8].cpu()
        numbers = {
            stage: set(uniform(cell.seed, stage, ids, 64, range(cell.draws)).ravel().tolist()) for stage in STAGES
        }
        shared = [f"{one} and {other}" for one, other in combinations(STAGES, 2) if numbers[one] & numbers[other]]
        if shared:
            yield Result(
                "FAIL", f"draws of {shared[0]} are the same numbers, so attacks know the verdict's noise.", cell.id
            )
        elif cell.draws < 10:
            text = f"only {cell.draws} scoring draws: vote and worst case say little; use --draws 10 or more."
            yield Result("WARN", text, cell.id, cell.draws, 10)
        else:
            yield Result("PASS", "", cell.id, cell.draws, 10)


def twin_gain(context: Context) -> Iterator[Result]:
    """R5: does the same network with random gates withstand more than with deterministic ones?"""
    for contestant in context.steady:
        if not contestant.clean.gating.stochastic:
            continue
        twins = [
            other
            for other in context.steady
            if other.clean.gating.kind == "deterministic"
            and other.clean.model is contestant.clean.model
            and other.clean.defense is contestant.clean.defense
            and other.clean.seed == contestant.clean.seed
        ]
        for cell, other in partners(contestant, twins[0]) if twins else ():
            gain, number = strongest_difference(context.correct(cell), context.correct(other))
            label = cell.epsilons[number].label
            if gain.lo <= 0:
                text = (
                    f"random gates withstand no more than deterministic ones (at most {gain.value:+.1%}, at {label})."
                )
                yield Result("INFO", text, cell.id, gain.value, 0.0)
            else:
                yield Result("PASS", "", cell.id, gain.value, 0.0)


def transfer(context: Context) -> Iterator[Result]:
    """S7: images made on the deterministic twin break no more than those of the direct gradient."""
    for cell in context.cells:
        if cell.attacker != "adaptive" or not cell.gating.stochastic:
            continue
        rows = context.result(cell.id)["rows"]
        for _, group in groupby(sorted(rows, key=lambda row: row["eps"]), key=lambda row: row["eps"]):
            by_path = {row["attacker"].partition("/")[2]: row for row in group}
            twin = by_path.pop("deterministic-twin", None)
            direct = [row for path, row in by_path.items() if path]
            if twin is None or not direct:
                continue
            best = min(direct, key=lambda row: float(row["accuracy"]))
            ahead = best["accuracy"] - twin["accuracy"]
            text = (
                f"images made on the deterministic twin are ahead of every direct gradient by {ahead:.1%} at "
                f"{twin['eps_label']}: "
                "the noise of the gates masks the gradient; raise --eot (the worst case already counts the twin)."
            )
            yield Result("WARN" if ahead > 0.002 and twin["hi"] < best["lo"] else "PASS", text, cell.id, ahead, 0.002)


def oracle(context: Context) -> Iterator[Result]:
    """R7: who knows the scoring draws breaks no less than who does not."""
    for contestant in context.steady:
        for cell in contestant.oracles:
            for fresh in contestant.attacked:
                if fresh.attack is not cell.attack or fresh.attacker != "adaptive":
                    continue
                lead, number = strongest_difference(context.correct(cell), context.correct(fresh))
                label = cell.epsilons[number].label
                text = (
                    f"with fresh noise the attack leaves {lead.value:.1%} less than with the noise that is scored, at "
                    f"{label}, though it knows less: noise is mixed up, or single draws need more steps or restarts."
                )
                yield Result("FAIL" if lead.lo > 0 else "PASS", text, cell.id, lead.value, 0.0)


def policy(context: Context) -> Iterator[Result]:
    """R6: gates do what the policy says, whatever the training flag, which attack libraries flip."""
    for contestant in context.contestants:
        cell = contestant.clean
        layout = cell.model.layout
        if layout is None:
            continue
        images, ids = context.images[:16], context.ids[:16]
        network = cell.model.network
        graph = layout.middle().to(images.device).expand(len(images), -1)
        with torch.no_grad():
            forced = run(network, images, Forced(graph))[1]
            trace = context.view(cell, images, ids)[1]
            with training_flag(network):
                flipped = context.view(cell, images, ids)[1]
        assert forced is not None
        assert trace is not None
        assert flipped is not None
        if not (forced.open == graph).all():
            text = "gates do not follow the policy that they are given; decide by margin and policy only."
            yield Result("FAIL", text, cell.id)
        elif not (trace.open == flipped.open).all():
            text = "gates change with the training flag, which attack libraries flip; make them follow the policy only."
            yield Result("FAIL", text, cell.id)
        else:
            yield Result("PASS", "", cell.id)
