"""G: do the gradients that the attacks follow exist, say something, and lead upwards?"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import filterfalse

import torch
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, defended, oracle, telling, uses_gradient
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context, Slope
from robustbench_aig.audit.steps import per_pixel
from robustbench_aig.contracts.margin import margin
from robustbench_aig.contracts.target import Passes, Target, mean_margin
from robustbench_aig.engine.eot import COSINE, agreement, knowing_path
from robustbench_aig.engine.plan import Cell

DIRECTIONS = 10
"""Random directions that a gradient has to beat."""

FEWEST = 8
"""Images without which a share says nothing."""


def _attackers(contestant: Contestant, context: Context) -> Iterator[Cell]:
    """One planned gradient attack of each attacker on the contestant, finished or failed."""
    seen = set()
    for cell in filterfalse(oracle, context.planned):
        same = cell.model is contestant.clean.model and cell.gating == contestant.clean.gating
        if (
            same
            and cell.defense is contestant.clean.defense
            and uses_gradient(cell)
            and cell.seed == contestant.clean.seed
        ):
            if cell.attacker not in seen:
                yield cell
            seen.add(cell.attacker)


def graph(context: Context) -> Iterator[Result]:
    """G1: a gradient reaches the images on every path of every attacker."""
    for contestant in context.contestants:
        for cell in _attackers(contestant, context):
            for path in context.paths(cell):
                slope = context.slope(cell, path)
                if isinstance(slope, Slope):
                    yield Result("PASS", "", cell.id)
                    continue
                part = (
                    "the defence needs a surrogate"
                    if defended(cell) and path == "direct"
                    else "remove detach() or no_grad()"
                )
                yield Result(
                    "FAIL", f"no gradient reaches the images on path '{path}' ({_first(slope)}); {part}.", cell.id
                )


def _first(text: str) -> str:
    return (text.splitlines() or [""])[0].rstrip(".")


def zero(context: Context) -> Iterator[Result]:
    """G2: images whose every gradient was zero in all pixels, by the attacks' own losses."""
    for cell in context.cells:
        if not uses_gradient(cell):
            continue
        share = max(measure["zero_gradient"] for measure in context.result(cell.id)["measures"])
        remedy = "attack a smooth stand-in of the model, or use square"
        if share > 0:
            slope = context.slope(cell, context.paths(cell)[-1])
            if isinstance(slope, Slope) and bool(_nonzero(slope.gradient).any()):
                remedy = "the margin has one: use loss=margin or pgd"
        text = f"{share:.1%} of the images never had a gradient, so they were not attacked; {remedy}."
        yield Result("FAIL" if share > 0.01 else "WARN" if share > 0 else "PASS", text, cell.id, share, 0.01)


def _nonzero(gradient: Tensor) -> Tensor:
    return (gradient.flatten(1) != 0).any(1)


def saturation(context: Context) -> Iterator[Result]:
    """G3: images whose cross-entropy is so small that float32 rounds its gradient away."""
    for contestant in context.steady:
        for cell in _attackers(contestant, context):
            slope = context.slope(cell, context.paths(cell)[0])
            if isinstance(slope, str):
                continue
            right = margin(slope.logits, context.labels) < 0
            if int(right.sum()) < FEWEST:
                continue
            chance = slope.logits.double().softmax(1).gather(1, context.labels[:, None])[:, 0]
            share = float((chance[right] > 1 - 1e-6).double().mean())
            blunt = [attack for attack in contestant.attacked if uses_gradient(attack) and _loss(attack) == "ce"]
            text = (
                f"cross-entropy is saturated on {share:.0%} of the images, where attacks on it are blunt and "
                "accuracy is too high; "
                "use loss=margin or loss=auto."
            )
            verdict: Verdict = "PASS" if share <= 0.05 else "WARN" if blunt else "INFO"
            yield Result(verdict, text, (blunt[0] if blunt else cell).id, share, 0.05)
            break


def _loss(cell: Cell) -> str:
    assert cell.attack is not None
    return str(cell.attack.settings().get("loss", "ce"))


def ascent(context: Context) -> Iterator[Result]:
    """G4: a small step along the gradient beats ten random ones on the real pipeline, under the same draws."""
    for contestant in context.steady:
        for cell in _attackers(contestant, context):
            slopes = {path: context.slope(cell, path) for path in context.paths(cell)}
            shares = [
                _ascends(context, cell, path, slope) for path, slope in slopes.items() if isinstance(slope, Slope)
            ]
            known = [share for share in shares if share is not None]
            if not known:
                continue
            images, share = max(known, key=lambda pair: pair[1])
            missed = round(images * (1 - share))
            verdict: Verdict = "FAIL" if share < 0.8 else "WARN" if share < 0.95 and missed > 1 else "PASS"
            text = (
                f"a step along the gradient beats ten random steps on only {share:.0%} of the images, so the "
                "gradient misleads "
                "its attacks; repair the backward pass or the surrogate, and check with square."
            )
            yield Result(verdict, text, cell.id, share, 0.95)


def _ascends(context: Context, cell: Cell, path: str, slope: Slope) -> tuple[int, float] | None:
    """How many images could be judged, and the share of them where the gradient's direction is the best one."""
    assert cell.attack is not None
    size = per_pixel(cell.epsilons[0].value, cell.attack.norm, context.images[0].numel())
    judged = _nonzero(slope.gradient) & (margin(slope.logits, context.labels) < 0)
    if int(judged.sum()) < FEWEST:
        return None
    gradients = dict(zip(context.ids.tolist(), slope.gradient, strict=True))

    def work(target: Target, images: Tensor, labels: Tensor) -> Tensor:
        draws = range(target.draws)
        along = torch.stack([gradients[number] for number in target.ids.tolist()]).sign()

        def climb(direction: Tensor) -> Tensor:
            return mean_margin(
                target.view((images + size * direction).clamp(0, 1), target.gradient_stage, draws), labels
            )

        others = [(target.uniform(images[0].numel(), draw).view_as(images) - 0.5).sign() for draw in range(DIRECTIONS)]
        return climb(along) > torch.stack([climb(other) for other in others]).amax(0)

    best = context.each(cell, path, work)[judged]
    return len(best), float(best.double().mean())


def converged(context: Context) -> Iterator[Result]:
    """G5: two independent gradients over K draws agree; full tier: twice the draws do not lower accuracy."""
    for contestant in context.steady:
        for cell in _attackers(contestant, context):
            if cell.attacker != "adaptive" or not contestant.random:
                continue
            path = knowing_path(cell, context.ids[:1], Passes.none(1, context.ids.device))[0]
            if isinstance(context.slope(cell, path), str):
                continue
            cosine, draws = float(context.each(cell, path, agreement).mean()), cell.gradient_draws
            text = (
                f"two gradients over {draws} draws have a cosine of {cosine:.2f}: noise still masks the gradient; "
                f"raise --eot to {2 * draws}, or use --eot auto."
            )
            yield Result("WARN" if cosine < COSINE else "PASS", text, cell.id, cosine, COSINE)
            if context.tier == "full" and cell in contestant.attacked:
                correct = context.correct(cell)
                number = telling(cell, correct)
                one = replace(cell, epsilons=(cell.epsilons[number],))
                more = context.rerun(replace(one, eot=2 * draws)).correct.mean()
                drop = float(context.rerun(one).correct.mean() - more)
                text = f"twice the draws per gradient lower accuracy by {drop:.1%}; raise --eot to {2 * draws}."
                yield Result("WARN" if drop > max(0.005, context.grain) else "PASS", text, cell.id, drop, 0.005)
