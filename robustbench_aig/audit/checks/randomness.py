"""R: what random gates do to the attack, and whether anything is left of what they seem to gain."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, groupby

import torch
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, aims_at_class, defended, partners, uses_gradient
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.probes import RADII, reach
from robustbench_aig.audit.text import difference, points
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import run, training_flag
from robustbench_aig.contracts.noise import Stage, uniform
from robustbench_aig.contracts.policy import Forced
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register
from robustbench_aig.statistics.comparisons import compare, strongest_difference

HARD_TO_EXPLAIN = 0.1
"""Lead of one known draw over deterministic gates that the difference between two networks does not explain."""

STAGES: tuple[Stage, ...] = ("craft", "select", "score", "start", "defend-craft", "defend-select", "defend-score")


@register(
    "R1",
    "randomness inside",
    cost="5 F",
    threshold="1e-4 of the logits",
    sound="all randomness is seeded.",
)
def inside(context: Context) -> Iterator[Result]:
    """The model draws no random numbers of its own: five passes under the same noise agree (AutoAttack's 1e-4)."""
    for contestant in context.contestants:
        text = (
            "the model gives other logits in every pass over copies of the same images: it draws random numbers that "
            "no seed names and no attack averages over; make them those of a gate policy, or of a defence that is "
            "given its noise."
        )
        random = context.random_inside(contestant.clean)
        yield Result("FAIL" if random else "PASS", text if random else "", contestant.clean.id)


@register(
    "R2",
    "frozen gates",
    cost="36 (F + B)",
    threshold="2 pt and p < 0.05 warns, 10 pt fails",
    sound="with one known draw the attack gets as far as with deterministic gates.",
)
def frozen(context: Context) -> Iterator[Result]:
    """With one known draw of the gates, an attack gets as far as with deterministic gates."""
    for contestant in context.steady:
        cells = [cell for cell in contestant.attacked if uses_gradient(cell)]
        if not contestant.clean.gating.stochastic or not cells:
            continue
        bare = replace(contestant.clean, defense=NO_DEFENSE, attacker="static")

        def known(target: Target, images: Tensor, labels: Tensor) -> Tensor:
            return reach(replace(target, gradient_stage="score", fixed_noise=True), images, labels)

        def twin(target: Target, images: Tensor, labels: Tensor) -> Tensor:
            return reach(replace(target, gating=Gating("deterministic")), images, labels)

        one, other = (context.each(bare, "static", work).double().cpu() for work in (known, twin))
        shares = torch.stack([(other > radius).double().mean() for radius in RADII])
        radius = RADII[int((shares - 0.5).abs().argmin())]
        first, second = ((distance > radius).double().numpy() for distance in (one, other))
        excess = float(first.mean() - second.mean())
        worse = excess > 0.02 and compare(first, second, seed=0, alternative="greater").p_value < 0.05
        verdict: Verdict = "PASS" if not worse else "FAIL" if excess > HARD_TO_EXPLAIN else "WARN"
        text = (
            f"within {255 * radius:.2g}/255 accuracy under one known draw of the gates stays {points(excess)} above "
            "that of deterministic gates, so the attack fails even without randomness; check how decisions pass "
            "gradients."
        )
        yield Result(verdict, text, cells[0].id, excess, 0.02)


@register(
    "R3",
    "gate-noise gap",
    threshold="the interval",
    sound="no accuracy comes from noise in the gradient.",
)
def gate_gap(context: Context) -> Iterator[Result]:
    """How much of the one-draw number is noise in the gradient: static minus adaptive."""
    for contestant in context.steady:
        if contestant.clean.gating.stochastic and not defended(contestant.clean):
            yield from static_gap(context, contestant, "the noise of a single gate draw", "--attacker adaptive")


def static_gap(context: Context, contestant: Contestant, hides: str, remedy: str) -> Iterator[Result]:
    """Static minus adaptive accuracy of each attack; a static row without its adaptive one is an upper bound only."""
    for cell in contestant.by_gradient:
        if cell.attacker != "static":
            continue
        adaptive = [
            other for other in contestant.attacked if other.attack is cell.attack and other.attacker == "adaptive"
        ]
        if not adaptive:
            text = f"the attacker does not know of {hides}: this accuracy is an upper bound only; add {remedy}."
            yield Result("WARN", text, cell.id)
            continue
        gap, number = strongest_difference(context.correct(cell), context.correct(adaptive[0]))
        text = (
            f"at {cell.epsilons[number].label} static accuracy differs from adaptive accuracy by {difference(gap)}: "
            f"that much of it is {hides}; read the adaptive row in its place."
        )
        yield Result("WARN" if gap.lo > 0 else "PASS", text, cell.id, gap.value, 0.0)


@register(
    "R4",
    "draws",
    threshold="any shared number; 10 draws",
    sound="crafting and scoring share no draw.",
)
def streams(context: Context) -> Iterator[Result]:
    """Crafting and scoring draws share no number, and there are ten or more to score on."""
    random = [contestant for contestant in context.steady if contestant.random]
    for contestant in random[:1]:
        cell, ids = contestant.clean, context.tried.ids[:8].cpu()
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


@register(
    "R5",
    "gain of random gates",
    threshold="the interval",
    sound="random gates withstand more than deterministic ones.",
)
def twin_gain(context: Context) -> Iterator[Result]:
    """Does the same network with random gates withstand more than with deterministic ones?"""
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
            text = (
                f"at {cell.epsilons[number].label}, where random gates are most ahead, accuracy with them differs from "
                f"that with deterministic ones by {difference(gain)}: no gain is shown."
            )
            yield Result("PASS" if gain.lo > 0 else "INFO", text, cell.id, gain.value, 0.0)


@register(
    "S7",
    "transfer from the twin",
    threshold="0.2 pt and intervals apart",
    sound="the deterministic twin is not ahead of the direct gradient.",
)
def transfer(context: Context) -> Iterator[Result]:
    """Images made on the deterministic twin break no more than those of the direct gradient."""
    for cell in context.cells:
        if cell.attacker != "adaptive" or not cell.gating.stochastic or not aims_at_class(cell):
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
                f"images made on the deterministic twin are ahead of every direct gradient by {points(ahead)} at "
                f"{twin['eps_label']}: the noise of the gates masks the gradient; raise --eot (the worst case counts "
                "the twin already)."
            )
            yield Result("WARN" if ahead > 0.002 and twin["hi"] < best["lo"] else "PASS", text, cell.id, ahead, 0.002)


@register(
    "R7",
    "known noise",
    threshold="the interval",
    sound="the attacker who knows the scoring draws is ahead of the one who does not.",
)
def oracle(context: Context) -> Iterator[Result]:
    """Who knows the scoring draws breaks no less than who does not."""
    for contestant in context.steady:
        for cell in filter(aims_at_class, contestant.oracles):
            for fresh in contestant.attacked:
                if fresh.attack is not cell.attack or fresh.attacker != "adaptive":
                    continue
                lead, number = strongest_difference(context.correct(cell), context.correct(fresh))
                text = (
                    f"at {cell.epsilons[number].label} accuracy under the attacker who knows the scored noise differs "
                    f"by {difference(lead)} from that under the one who does not, though he knows more: noise is mixed "
                    "up, or single draws need more steps or restarts."
                )
                yield Result("FAIL" if lead.lo > 0 else "PASS", text, cell.id, lead.value, 0.0)


@register(
    "R6",
    "gates obey the policy",
    cost="3 F",
    threshold="any decision",
    sound="gates do what the policy says.",
)
def policy(context: Context) -> Iterator[Result]:
    """Gates do what the policy says, whatever the training flag, which attack libraries flip."""
    for contestant in context.contestants:
        cell = contestant.clean
        layout = cell.model.layout
        if layout is None:
            continue
        images, ids = context.tried.images[:16], context.tried.ids[:16]
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
