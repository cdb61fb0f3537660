"""T: is what was scored inside the threat model, and does the protocol itself leave accuracy alone?"""

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from robustbench_aig.audit.cells import is_control
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.state import misread
from robustbench_aig.audit.text import points
from robustbench_aig.contracts.crafting import SLACK
from robustbench_aig.engine.plan import Cell
from robustbench_aig.registry import register
from robustbench_aig.statistics.intervals import Floats


@register(
    "T1",
    "budget",
    threshold="any image",
    sound="every returned image is inside its ball and [0, 1].",
)
def budget(context: Context) -> Iterator[Result]:
    """Every returned image is finite, inside its ball and box, and not all black."""
    for cell in context.cells:
        if cell.attack is None:
            continue
        share = max(measure["invalid"] for measure in context.result(cell.id)["measures"])
        if share > 0 or _excess(context, cell) > 0:
            text = (
                f"{share:.1%} of the images that the attack returned were outside their ball or [0, 1], not finite or "
                "all black, and count as not attacked; project and clamp inside the attack."
            )
            yield Result("FAIL", text, cell.id, share, 0.0)
        else:
            yield Result("PASS", "", cell.id, share, 0.0)


def _excess(context: Context, cell: Cell) -> float:
    """By how much the largest recorded perturbation is outside its ball, beyond rounding."""
    assert cell.attack is not None
    samples = context.samples(cell)
    if cell.attack.norm not in samples:
        return 0.0
    sizes, budgets = samples[cell.attack.norm], samples["eps"]
    return float((sizes - budgets - 10 * SLACK * budgets.clip(lower=1.0)).max())


@register(
    "T2",
    "8-bit images",
    tier="full",
    cost="the attack + S F",
    threshold="1 pt",
    sound="the attacks survive storage as 8-bit images.",
)
def eight_bit(context: Context) -> Iterator[Result]:
    """Does the attack survive storage as 8-bit images that keep the budget?"""
    for cell, _ in context.at_class:
        assert cell.attack is not None
        again = context.rerun(cell)
        lost = 0.0
        for number, epsilon in enumerate(cell.epsilons):
            stored = _stored(again.images[number], context.tried.images, epsilon.value, cell.attack.norm)
            lost = max(lost, float((context.score(cell, stored) - again.correct[number]).mean()))
        text = (
            f"accuracy rises by {points(lost)} when the attacked images are stored with 8 bits, within the budget; "
            "for Linf choose budgets of whole levels."
        )
        yield Result("WARN" if lost > max(0.01, context.grain) else "PASS", text, cell.id, lost, 0.01)


def _stored(images: Tensor, clean: Tensor, size: float, norm: str) -> Tensor:
    """Images on 8-bit levels that stay inside the ball around 8-bit ``clean`` images."""
    levels = (images - clean) * 255
    if norm == "linf":
        most = int(size * 255 + 1e-4)
        levels = levels.round().clamp(-most, most)
    else:
        levels = levels.round() if norm == "l0" else levels.trunc()
    return (clean + levels / 255).clamp(0, 1)


@register(
    "T3",
    "state",
    cost="3 F",
    threshold="any model",
    sound="models stay in eval mode, keep their weights and their images, and return logits.",
)
def state(context: Context) -> Iterator[Result]:
    """The model stays in eval mode, keeps weights, buffers and images, and returns float32 logits image by image."""
    for _, group in groupby(context.contestants, key=lambda contestant: contestant.clean.model.name):
        cell = next(group).clean
        tried = context.tried
        problem = context.unsteady(cell) or misread(context.view(cell, tried.images, tried.ids)[0])
        if problem:
            yield Result("FAIL", problem, cell.id)
        elif context.rewrites(cell):
            text = (
                "the model changes its input in place, so whoever passes images on must copy them first; compute a new "
                "tensor, as in x = x - mean in place of x -= mean."
            )
            yield Result("WARN", text, cell.id)
        else:
            yield Result("PASS", "", cell.id)


@register(
    "T4",
    "null attack",
    cost="S F",
    threshold="any verdict (CPU)",
    sound="the protocol itself changes no verdict.",
)
def null(context: Context) -> Iterator[Result]:
    """Clean images, scored again, get the verdicts that the sweep recorded; so do those of a control attack."""
    rows = context.rows.numpy()
    for contestant in context.contestants:
        cell = contestant.clean
        recorded = context.correct(cell)
        yield _unchanged(context, cell, recorded[0][rows], context.score(cell, context.tried.images))
        for control in contestant.attacked:
            if is_control(control):
                for again in context.correct(control):
                    yield _unchanged(context, control, recorded[0], again)


def _unchanged(context: Context, cell: Cell, recorded: Floats, again: Floats) -> Result:
    changed, change = int((again != recorded).sum()), float((again - recorded).mean())
    allowed = 0 if context.settings.device.type == "cpu" else max(1, len(recorded) // 1000)
    text = (
        f"{changed} of {len(recorded)} clean verdicts change from pass to pass, and accuracy by {points(change)}, "
        "though every draw is seeded; find what differs: inner randomness, batch statistics or changed weights."
    )
    verdict: Verdict = "PASS" if not changed else "FAIL" if changed > allowed else "WARN"
    return Result(verdict, text, cell.id, changed / len(recorded), allowed / len(recorded))


@register(
    "T5",
    "reproducible",
    tier="full",
    cost="the attack + S F",
    threshold="any verdict (CPU), 0.1 % (GPU)",
    sound="attacking again gives the same verdicts.",
)
def reproducible(context: Context) -> Iterator[Result]:
    """Attacking and scoring again, in other batches, gives the recorded verdicts."""
    rows = context.rows.numpy()
    allowed = 0.0 if context.settings.device.type == "cpu" else 0.001
    for cell, recorded in context.at_class:
        again: Floats = context.rerun(cell).correct
        changed = float((again != recorded[:, rows]).mean())
        text = (
            f"{changed:.1%} of the verdicts differ when the attack is repeated with the same seed; fix what is not "
            "seeded, or read the last digits as noise."
        )
        yield Result("WARN" if changed > allowed else "PASS", text, cell.id, changed, allowed)


@register(
    "T6",
    "finite logits",
    threshold="any image",
    sound="every image got finite logits in every pass.",
)
def finite_logits(context: Context) -> Iterator[Result]:
    """No image, clean or attacked, got a NaN or infinite logit in any draw, while attacked or when scored."""
    for cell in context.cells:
        samples, total = context.samples(cell), len(cell.dataset)
        if "nonfinite" not in samples:  # written by a version that did not count
            continue
        if cell.attack is None:
            share = float((samples["nonfinite"] > 0).mean())
        else:
            share = max(measure["nonfinite_logits"] for measure in context.result(cell.id)["measures"])
        text = (
            f"{round(share * total)} of {total} {'clean' if cell.attack is None else 'attacked'} images have NaN or "
            "infinite logits, which count as wrong answers and steer no attack; find the operation that overflows or "
            "leaves its domain, such as a root or logarithm."
        )
        yield Result("FAIL" if share else "PASS", text, cell.id, share, 0.0)
