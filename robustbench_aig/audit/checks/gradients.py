"""G: do the gradients that the attacks follow exist, say something, and lead upwards?"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import filterfalse

import torch
from torch import Tensor

from robustbench_aig.audit.cells import Contestant, defended, oracle, telling, uses_gradient
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context, Slope
from robustbench_aig.audit.probes import STEPS, beside, disagreement
from robustbench_aig.audit.text import points
from robustbench_aig.contracts.defense import NO_DEFENSE, Defense
from robustbench_aig.contracts.margin import margin
from robustbench_aig.contracts.target import Passes, Target, mean_margin
from robustbench_aig.engine.eot import COSINE, agreement, knowing_path
from robustbench_aig.engine.plan import Cell
from robustbench_aig.registry import register

DIRECTIONS = 10
"""Random directions that a gradient has to beat."""

CLOSED = (0.5, 1.0, 2.0, 4.0)
"""Lengths of signed steps, tried in turn, as the share of an image's margin that each closes by its gradient. Short
ones say most of the gradient, but do not show behind a codec, which rounds them away."""

STEP_LIMITS = (1 / 4080, 32 / 255)
"""Shortest and longest of these steps, in pixel values."""

FEWEST = 8
"""Images without which a share says nothing."""

FAR_OFF = 0.1
"""Squared error of a predicted slope that counts as a contradiction; of sound networks it is below 0.02 all but always,
and the mean of a gradient that is zero on half the pixels is above 0.3."""


def _attackers(contestant: Contestant, context: Context) -> Iterator[Cell]:
    """One planned gradient attack of each attacker on the contestant, finished or failed; attacks on gates, which take
    one path only, where there is no other."""
    clean, seen = contestant.clean, set()
    planned = filterfalse(oracle, context.planned)
    for cell in sorted(filter(uses_gradient, planned), key=lambda cell: cell.attack is None or cell.attack.needs_gates):
        same = cell.model is clean.model and cell.gating == clean.gating and cell.seed == clean.seed
        if same and cell.defense is clean.defense and cell.attacker not in seen:
            seen.add(cell.attacker)
            yield cell


@register(
    "G1",
    "gradient path",
    cost="1 F + 1 B per path",
    threshold="any path",
    sound="a gradient reaches the images.",
)
def graph(context: Context) -> Iterator[Result]:
    """A gradient reaches the images on every path of every attacker."""
    for contestant in context.contestants:
        for cell in _attackers(contestant, context):
            for path in context.paths(cell):
                slope = context.slope(cell, path)
                if isinstance(slope, Slope):
                    yield Result("PASS", "", cell.id)
                    continue
                text = (
                    f"no gradient reaches the images on path '{path}' ({_first(slope)}); {_remedy(slope, cell, path)}."
                )
                yield Result("FAIL", text, cell.id)


def _first(text: str) -> str:
    return (text.splitlines() or [""])[0].rstrip(".")


def _remedy(message: str, cell: Cell, path: str) -> str:
    if "in-place" in message:
        return "compute a new tensor in place of changing the images"
    if defended(cell) and path == "direct":
        return "the defence needs a surrogate"
    return "remove detach() or no_grad()"


@register(
    "G2",
    "zero gradients",
    threshold="0 warns, 1 % fails",
    sound="every attacked image had a gradient.",
)
def zero(context: Context) -> Iterator[Result]:
    """Images whose every gradient was zero in all pixels, by the attacks' own losses."""
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


@register(
    "G3",
    "saturation",
    cost="with G1",
    threshold="5 %",
    sound="cross-entropy is not saturated.",
)
def saturation(context: Context) -> Iterator[Result]:
    """Images whose cross-entropy is so small that float32 rounds its gradient away."""
    labels = context.tried.labels
    for contestant in context.steady:
        for cell in _attackers(contestant, context):
            slope = context.slope(cell, context.paths(cell)[0])
            if isinstance(slope, str):
                continue
            right = margin(slope.logits, labels) < 0
            if int(right.sum()) < FEWEST:
                continue
            chance = slope.logits.double().softmax(1).gather(1, labels[:, None])[:, 0]
            share = float((chance[right] > 1 - 1e-6).double().mean())
            blunt = [attack for attack in contestant.by_gradient if _on_cross_entropy(attack)]
            text = f"cross-entropy is saturated on {share:.0%} of the images, where attacks on it are blunt" + (
                " and accuracy is too high; use loss=margin or loss=auto." if blunt else "; these attacks have others."
            )
            verdict: Verdict = "PASS" if share <= 0.05 else "WARN" if blunt else "INFO"
            yield Result(verdict, text, (blunt[0] if blunt else cell).id, share, 0.05)
            break


def _on_cross_entropy(cell: Cell) -> bool:
    """Whether the attack says that its only loss is cross-entropy; those of libraries do not say."""
    assert cell.attack is not None
    return cell.attack.settings().get("loss") == "ce"


@register(
    "G4",
    "ascent",
    cost="11 F per path, more where it fails",
    threshold="95 % warns, 80 % fails",
    sound="small steps along the gradient beat random ones.",
)
def ascent(context: Context) -> Iterator[Result]:
    """A small step along the gradient beats ten random ones on the real pipeline, under the same draws."""
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
                f"a small step along the gradient beats ten random ones on only {share:.0%} of the images, so the "
                "gradient misleads its attacks; repair the backward pass or the surrogate, and check with square."
            )
            yield Result(verdict, text, cell.id, share, 0.95)


def _ascends(context: Context, cell: Cell, path: str, slope: Slope) -> tuple[int, float] | None:
    """How many images could be judged, and the share of them where the gradient's direction is the best one, at the
    length of step where most are."""
    judged = _nonzero(slope.gradient) & (margin(slope.logits, context.tried.labels) < 0)
    if int(judged.sum()) < FEWEST:
        return None
    place = {number: row for row, number in enumerate(context.tried.ids.tolist())}
    along = slope.gradient.sign()
    steepest = slope.gradient.abs().sum((1, 2, 3)).clamp_min(torch.finfo(along.dtype).tiny)
    whole = margin(slope.logits, context.tried.labels).abs() / steepest
    highest = 0.0
    for share in CLOSED:
        steps = (share * whole).clamp(*STEP_LIMITS).view(-1, 1, 1, 1)

        def work(target: Target, images: Tensor, labels: Tensor, steps: Tensor = steps) -> Tensor:
            rows = [place[number] for number in target.ids.tolist()]

            def climb(direction: Tensor) -> Tensor:
                moved = (images + steps[rows] * direction).clamp(0, 1)
                return mean_margin(target.view(moved, target.gradient_stage, range(target.draws)), labels)

            numbers = [target.uniform(images[0].numel(), draw).view_as(images) for draw in range(DIRECTIONS)]
            return climb(along[rows]) > torch.stack([climb((number - 0.5).sign()) for number in numbers]).amax(0)

        highest = max(highest, float(context.each(cell, path, work)[judged].double().mean()))
        if highest >= 0.95:
            break
    return int(judged.sum()), highest


@register(
    "G5",
    "EOT convergence",
    cost="2 K (F + B); full: the attack at K and 2 K",
    threshold="cosine 0.9; 0.5 pt",
    sound="gradients over the draws have settled.",
)
def converged(context: Context) -> Iterator[Result]:
    """Two independent gradients over K draws agree; full tier: twice the draws do not lower accuracy."""
    for contestant in context.steady:
        for cell in _attackers(contestant, context):
            if cell.attacker != "adaptive" or not contestant.random:
                continue
            ids = context.tried.ids[:1]
            path = knowing_path(cell, ids, Passes.none(1, ids.device))[0]
            if isinstance(context.slope(cell, path), str):
                continue
            cosine, draws = float(context.each(cell, path, agreement).mean()), cell.gradient_draws
            text = (
                f"two gradients over {draws} draws have a cosine of {cosine:.2f}: noise still masks the gradient; "
                f"raise --eot to {2 * draws}, or use --eot auto."
            )
            yield Result("WARN" if cosine < COSINE else "PASS", text, cell.id, cosine, COSINE)
            if context.tier == "full" and cell in contestant.at_class:
                correct = context.correct(cell)
                number = telling(cell, correct)
                one = replace(cell, epsilons=(cell.epsilons[number],))
                more = context.rerun(replace(one, eot=2 * draws)).correct.mean()
                drop = float(context.rerun(one).correct.mean() - more)
                text = f"twice the draws per gradient lower accuracy by {points(drop)}; raise --eot to {2 * draws}."
                yield Result("WARN" if drop > max(0.005, context.grain) else "PASS", text, cell.id, drop, 0.005)


@register(
    "G6",
    "finite gradients",
    threshold="0 warns, 1 % fails",
    sound="no gradient had a NaN or infinite entry.",
)
def finite_gradients(context: Context) -> Iterator[Result]:
    """Images with a NaN or infinite entry in some gradient, which attacks see as 0."""
    for cell in context.cells:
        if not uses_gradient(cell):
            continue
        share = max(measure.get("nonfinite_gradient", 0.0) for measure in context.result(cell.id)["measures"])
        text = (
            f"gradients of {share:.1%} of the images have NaN or infinite entries, along which no attack steps, so "
            "accuracy is too high; find the operation whose derivative has no value there, such as a root at 0."
        )
        yield Result("FAIL" if share > 0.01 else "WARN" if share > 0 else "PASS", text, cell.id, share, 0.01)


def _differentiated(context: Context, contestant: Contestant) -> Defense:
    """The defence, if gradients go through it and not through a stand-in; otherwise none."""
    defense = contestant.clean.defense
    if not defended(contestant.clean) or defense.surrogates:
        return NO_DEFENSE
    return defense if isinstance(context.slope(context.knowing(contestant), "direct"), Slope) else NO_DEFENSE


@register(
    "G7",
    "finite differences",
    cost="50 F + 2 B",
    threshold="2 % of directions warns, 5 % fails; on the images themselves 20 % warns",
    sound="differences of the margin confirm its gradient, in parts of the images too.",
)
def differences(context: Context) -> Iterator[Result]:
    """The gradient predicts how the margin changes along random directions in random parts of the images.

    It must close by the images. On them, kinks are no fault: where pixels are black, many networks have one. But where
    most directions meet some, single steps start in the wrong direction. The model is tried without a defence, and
    behind one that is differentiated itself; gates count as they decide.
    """
    seen = set()
    for contestant in context.steady:
        clean = contestant.clean
        attackers = list(_attackers(contestant, context))
        through = _differentiated(context, contestant)
        key = clean.model.name, clean.gating, through
        if key in seen or not attackers:
            continue
        seen.add(key)

        def work(target: Target, images: Tensor, labels: Tensor, through: Defense = through) -> Tensor:
            one = replace(target, defense=through, gate_gradient="none", draws=1)
            near = disagreement(one, beside(one, images), labels)
            return torch.stack([near, disagreement(one, images, labels, STEPS[-1:])], 2)

        try:
            errors = context.each(replace(clean, attacker="static"), "static", work)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):  # no gradient reaches the images, of which G1 tells
            continue
        near, on = errors.unbind(2)
        if int((~near.isnan()).sum()) < FEWEST:
            continue
        yield _contradicted(near, on, attackers[0])


def _contradicted(near: Tensor, on: Tensor, cell: Cell) -> Result:
    """What squared errors (N, D) beside the images and on them say."""
    off = near > FAR_OFF
    share, kinks = (float((part > FAR_OFF).sum() / (~part.isnan()).sum().clamp_min(1)) for part in (near, on))
    if share > 0.02 and int(off.sum()) > 3:
        text = (
            f"along {share:.0%} of the tried directions, in {int(off.any(1).sum())} of {len(near)} images, the model "
            "changes otherwise than its gradient says, so the gradient is wrong on a part of the images or pixels and "
            "attacks are misled; look for detach(), rounding, or an autograd function of your own."
        )
        return Result("FAIL" if share > 0.05 else "WARN", text, cell.id, share, 0.05)
    if kinks > 0.2:
        text = (
            f"along {kinks:.0%} of the tried directions the clean images lie on a kink, where the gradient does not "
            "say how the model changes, as behind clamp() or relu() at black pixels; single steps are misled, so use "
            "an attack that starts at random."
        )
        return Result("WARN", text, cell.id, kinks, 0.2)
    return Result("PASS", "", cell.id, share, 0.05)
