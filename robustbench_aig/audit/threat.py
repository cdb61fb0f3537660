"""T: is what was scored inside the threat model, and does the protocol itself leave accuracy alone?"""

from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from robustbench_aig.audit.cells import is_control
from robustbench_aig.audit.check import Result, Verdict
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.state import misread
from robustbench_aig.contracts.crafting import SLACK
from robustbench_aig.engine.plan import Cell
from robustbench_aig.statistics.intervals import Floats


def budget(context: Context) -> Iterator[Result]:
    """T1: every returned image is finite, inside its ball and box, and not all black."""
    for cell in context.cells:
        if cell.attack is None:
            continue
        share = max(measure["invalid"] for measure in context.result(cell.id)["measures"])
        samples = context.samples(cell)
        size = samples[cell.attack.norm if cell.attack.norm in ("linf", "l2") else "l2"]
        excess = float((size - samples["eps"]).max())
        if share > 0 or excess > SLACK * (1 if cell.attack.norm == "linf" else 10):
            text = (
                f"{share:.1%} of the images that the attack returned were outside their ball or [0, 1], not finite "
                "or all black, "
                "and count as not attacked; project and clamp inside the attack."
            )
            yield Result("FAIL", text, cell.id, share, 0.0)
        else:
            yield Result("PASS", "", cell.id, share, 0.0)


def eight_bit(context: Context) -> Iterator[Result]:
    """T2: does the attack survive storage as 8-bit images that keep the budget?"""
    for cell, _ in context.attacked:
        if cell.attack is None or cell.attack.norm not in ("linf", "l2"):
            continue
        again = context.rerun(cell)
        lost = 0.0
        for number, epsilon in enumerate(cell.epsilons):
            stored = _stored(again.images[number], context.images, epsilon.value, cell.attack.norm)
            lost = max(lost, float((context.score(cell, stored) - again.correct[number]).mean()))
        text = f"{lost:.1%} of accuracy comes back when images are stored with 8 bits; use whole levels as epsilons."
        yield Result("WARN" if lost > max(0.01, context.grain) else "PASS", text, cell.id, lost, 0.01)


def _stored(images: Tensor, clean: Tensor, size: float, norm: str) -> Tensor:
    """Images on 8-bit levels that stay inside the ball around 8-bit ``clean`` images."""
    levels = (images - clean) * 255
    if norm == "linf":
        most = int(size * 255 + 1e-4)
        levels = levels.round().clamp(-most, most)
    else:
        levels = levels.trunc()
    return (clean + levels / 255).clamp(0, 1)


def state(context: Context) -> Iterator[Result]:
    """T3: the model stays in eval mode, keeps its weights and buffers, and returns float32 logits image by image."""
    for _, group in groupby(context.contestants, key=lambda contestant: contestant.clean.model.name):
        cell = next(group).clean
        problem = context.unsteady(cell) or misread(context.view(cell, context.images, context.ids)[0])
        yield Result("FAIL", problem, cell.id) if problem else Result("PASS", "", cell.id)


def null(context: Context) -> Iterator[Result]:
    """T4: clean images, scored again, get the verdicts that the sweep recorded; so do those of a control attack."""
    rows = context.rows.numpy()
    for contestant in context.contestants:
        cell = contestant.clean
        recorded = context.correct(cell)
        yield _unchanged(context, cell, recorded[0][rows], context.score(cell, context.images))
        for control in contestant.attacked:
            if is_control(control):
                for again in context.correct(control):
                    yield _unchanged(context, control, recorded[0], again)


def _unchanged(context: Context, cell: Cell, recorded: Floats, again: Floats) -> Result:
    changed, change = int((again != recorded).sum()), float((again - recorded).mean())
    allowed = 0 if context.settings.device.type == "cpu" else max(1, len(recorded) // 1000)
    text = (
        f"{changed} of {len(recorded)} clean verdicts change from pass to pass ({change:+.1%} accuracy) "
        "though every draw is seeded; find what differs: inner randomness, batch statistics or changed weights."
    )
    verdict: Verdict = "PASS" if not changed else "FAIL" if changed > allowed else "WARN"
    return Result(verdict, text, cell.id, changed / len(recorded), allowed / len(recorded))


def reproducible(context: Context) -> Iterator[Result]:
    """T5: attacking and scoring again, in other batches, gives the recorded verdicts."""
    rows = context.rows.numpy()
    allowed = 0.0 if context.settings.device.type == "cpu" else 0.001
    for cell, recorded in context.attacked:
        again: Floats = context.rerun(cell).correct
        changed = float((again != recorded[:, rows]).mean())
        text = (
            f"{changed:.1%} of the verdicts differ when the attack is repeated with the same seed; fix what is not "
            "seeded, "
            "or read the last digits as noise."
        )
        yield Result("WARN" if changed > allowed else "PASS", text, cell.id, changed, allowed)
