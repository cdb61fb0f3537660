"""D: does the defence hide its gradient, and is anything left of it when it cannot?"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from robustbench_aig.audit.cells import defended, partners
from robustbench_aig.audit.check import Result
from robustbench_aig.audit.checks.randomness import static_gap
from robustbench_aig.audit.context import Context
from robustbench_aig.audit.text import difference
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.target import Target
from robustbench_aig.registry import register
from robustbench_aig.statistics.comparisons import strongest_difference


@register(
    "D1",
    "defence gap",
    threshold="the interval",
    sound="no accuracy comes from the defence's missing gradient.",
)
def gap(context: Context) -> Iterator[Result]:
    """How much of the static number is the defence's missing gradient: static minus adaptive."""
    for contestant in context.steady:
        if defended(contestant.clean):
            yield from static_gap(context, contestant, "the missing gradient of the defence", "--attacker adaptive")


@register(
    "D2",
    "surrogate parity",
    cost="4 F per path",
    threshold="38 dB; 90 % of classes",
    sound="surrogates look like the defence.",
)
def parity(context: Context) -> Iterator[Result]:
    """Surrogates that replace the defence in the forward pass look like it, to the eye and to the model."""
    for contestant in context.steady:
        if not defended(contestant.clean):
            continue
        cell = context.knowing(contestant)
        for path in context.paths(cell):

            def work(target: Target, images: Tensor, labels: Tensor) -> Tensor:
                return _parity(target, images)

            if isinstance(context.slope(cell, path), str):
                continue
            found = context.each(cell, path, work)
            error, agreement = float(found[:, 0].mean()), float(found[:, 1].mean())
            decibels = 99.0 if error == 0 else min(99.0, -10 * math.log10(error))
            text = (
                f"surrogate '{path}' is {decibels:.1f} dB from the real defence, and the model agrees on "
                f"{agreement:.0%} of the images: attacks through it aim elsewhere; read the other paths."
            )
            yield Result("WARN" if decibels < 38 or agreement < 0.9 else "PASS", text, cell.id, decibels, 38.0)


def _parity(target: Target, images: Tensor) -> Tensor:
    """(N, 2): mean squared error of the surrogate's images, and whether the model sees the same class in both."""
    with torch.no_grad():
        stage, bare = target.gradient_stage, replace(target, defense=NO_DEFENSE)
        real, stand_in = (target.seen(images, [0], stage, differentiable=kind) for kind in (False, True))
        error = (stand_in - real).square().flatten(1).mean(1)
        classes = [bare.view(seen, stage, [0]).logits[0].argmax(1) for seen in (real, stand_in)]
    return torch.stack([error, (classes[0] == classes[1]).float()], 1)


@register(
    "D3",
    "codec",
    threshold="golden hash",
    sound="the codec gives the tested pixels.",
)
def codec(context: Context) -> Iterator[Result]:
    """The codec is the one that this suite was tested with."""
    seen = set()
    for contestant in context.steady:
        defense = contestant.clean.defense
        if not defended(contestant.clean) or defense.label in seen:
            continue
        seen.add(defense.label)
        warning = defense.record().get("warning")
        yield Result("WARN" if warning else "PASS", str(warning or ""), contestant.clean.id)


@register(
    "D4",
    "gain of the defence",
    threshold="the interval",
    sound="the defence raises accuracy under attack.",
)
def net_gain(context: Context) -> Iterator[Result]:
    """Does the model withstand more behind the defence than without it, against the attacker who knows most?"""
    for contestant in context.steady:
        if not defended(contestant.clean):
            continue
        bare = [
            other
            for other in context.steady
            if not defended(other.clean)
            and other.clean.model is contestant.clean.model
            and other.clean.gating == contestant.clean.gating
            and other.clean.seed == contestant.clean.seed
        ]
        for cell, other in partners(contestant, bare[0]) if bare else ():
            gain, number = strongest_difference(context.correct(cell), context.correct(other))
            text = (
                f"at {cell.epsilons[number].label}, where the defence is most ahead, accuracy with it differs from "
                f"that without it by {difference(gain)}: no gain is shown."
            )
            yield Result("PASS" if gain.lo > 0 else "INFO", text, cell.id, gain.value, 0.0)
