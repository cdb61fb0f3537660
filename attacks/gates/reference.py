"""What a gate attack learns from the reference images of a target: classes, their rates and single graphs."""

from dataclasses import replace

import torch
from torch import Tensor

from attacks.gates.objectives import select, trace_of
from robustbench_aig.contracts.target import Passes, Reference, Target
from robustbench_aig.errors import UsageError, unknown


def reference_of(target: Target) -> Reference:
    """The images that the attacker may learn from.

    Raises:
        UsageError: there are none.
    """
    if target.reference is None or not len(target.reference.images):
        raise UsageError(
            "this attack learns from reference images, and there are none; leave some of the data set for it."
        )
    return target.reference


def on_reference(target: Target, reference: Reference) -> Target:
    """The target for the reference images, with counters of its own."""
    count, device = len(reference.ids), reference.images.device
    rows = torch.arange(count, device=device)
    return replace(target, ids=reference.ids, rows=rows, passes=Passes.none(count, device))


def find_class(target: Target, name: str) -> tuple[Reference, int]:
    """The reference images and the number of a class, given by name or number.

    Raises:
        UsageError: there is no such class, or no reference image of it.
    """
    reference = reference_of(target)
    names = list(reference.classes) or [str(number) for number in range(int(reference.labels.max()) + 1)]
    if name not in names and not (name.isdecimal() and int(name) < len(names)):
        raise unknown("class", name, names)
    number = names.index(name) if name in names else int(name)
    if not (reference.labels == number).any():
        raise UsageError(
            f"no reference image shows class '{name}'; leave more of the data set for the attack to learn from."
        )
    return reference, number


def class_rates(target: Target, reference: Reference) -> Tensor:
    """(classes, L) mean chance of every gate being open for each class of reference images; NaN without any."""
    key = ("class rates", target.gating, target.seed, id(target.model), id(target.defense))
    if key not in reference.memory:
        trace = trace_of(select(on_reference(target, reference), reference.images))
        chance = trace.running if target.gating.stochastic else trace.open
        count = max(int(reference.labels.max()) + 1, len(reference.classes))
        own = [chance.mean(0)[reference.labels == number].mean(0) for number in range(count)]
        reference.memory[key] = torch.stack(own)
    rates: Tensor = reference.memory[key]
    return rates


def graph_of(target: Target, identifier: str) -> Tensor:
    """(L,) the most frequent decisions for one reference image.

    Raises:
        UsageError: no reference image has this id.
    """
    reference = reference_of(target)
    found = (reference.ids == int(identifier)).nonzero() if identifier.isdecimal() else reference.ids.new_empty(0)
    if not len(found):
        few = ", ".join(str(number) for number in reference.ids[:3].tolist())
        raise UsageError(f"no reference image has id '{identifier}'; choose one such as {few}.")
    rows = found[0]
    view = select(on_reference(target, reference).take(rows), reference.images[rows])
    return (trace_of(view).open.mean((0, 1)) > 0.5).float()
