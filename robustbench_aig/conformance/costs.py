"""What a network that decides must cost: what it runs, and nothing for what it skips."""

import torch
from torch import Tensor

from robustbench_aig.conformance.case import Broken, NotApplicable, Outcome, Subject, dynamic, failed, guarded, passed
from robustbench_aig.contracts.network import DynamicNetwork, costs_of, multiply_adds
from robustbench_aig.contracts.policy import Forced, Stochastic
from robustbench_aig.contracts.trace import Costs

ALIKE = 0.01
"""By how much, as a share, multiply-adds that are counted may differ from those that the network states."""

STATE = "let 'costs' state a floor and what each unit adds, all of them finite and 0 or more"

SKIP = "run the unit by robustbench_aig.skip(unit, x, decision), or state in 'costs' what it costs"


@dynamic("costs of skipped units", STATE)
def skipped(subject: Subject) -> Outcome:
    """A unit that does not run costs nothing: what is counted along forced routes is what the costs say."""
    stated, layout = _stated(subject), subject.dynamic.layout
    own = getattr(type(subject.network), "costs", None) is not DynamicNetwork.costs
    counted, claimed = _along(subject, subject.everything)
    saved = []
    for route in subject.beside(subject.everything):
        less, expected = _along(subject, route)
        changed = layout.names[int((route != subject.everything).nonzero()[0])]
        saved.append((changed, counted - less, claimed - expected))
    if own and counted > claimed * (1 + ALIKE) and not any(less for _, less, _ in saved):
        raise NotApplicable("every unit runs in every pass, and 'costs' states what each is worth")
    idle = [name for name, less, expected in saved if not less and expected]
    idle += [] if own else [layout.names[unit] for unit in (stated.units <= 0).nonzero()[:, 0].tolist()]
    if idle:
        return failed(f"'{idle[0]}' takes as many multiply-adds whether it runs or not ({counted:,.0f} in all)", SKIP)
    for name, less, expected in saved:
        if abs(less - expected) > ALIKE * max(abs(less), abs(expected)):
            symptom = f"another decision on '{name}' saves {less:,.0f} multiply-adds, and 'costs' says {expected:,.0f}"
            return failed(symptom, "correct 'costs', or leave it out to have them counted")
    if counted > claimed * (1 + ALIKE):
        symptom = f"a pass takes {counted:,.0f} multiply-adds, and 'costs' says {claimed:,.0f}"
        return failed(symptom, "correct 'costs', or leave it out to have them counted")
    return passed(f"{len(saved) + 1} routes take what their units cost, such as {counted:,.0f} multiply-adds")


@dynamic("costs in bounds", STATE)
def bounds(subject: Subject) -> Outcome:
    """What images cost lies between the cheapest and the dearest route, whatever is decided."""
    stated, layout = _stated(subject), subject.dynamic.layout
    with torch.no_grad():
        drawn = [subject.traced(subject.images, Stochastic(noise, "none"))[1] for noise in subject.noise(4)]
    macs = torch.cat([trace.macs for trace in (subject.decided[1], *drawn)])
    least, most = (stated.extreme(layout, sign) for sign in (-1, 1))
    inside = (macs >= least * (1 - 1e-9)) & (macs <= most * (1 + 1e-9)) & (macs >= 0)
    span = f"images take {macs.min():,.0f} to {macs.max():,.0f} multiply-adds"
    if stated.floor < 0 or bool((stated.units < 0).any()) or not inside.all():
        return failed(f"{span}, and routes {least:,.0f} to {most:,.0f}, with a floor of {stated.floor:,.0f}", STATE)
    return passed(f"{span}, and routes {least:,.0f} to {most:,.0f}")


def _stated(subject: Subject) -> Costs:
    stated = guarded(costs_of, subject.dynamic, tuple(subject.images.shape[1:]))
    units = len(subject.dynamic.layout)
    if stated.units.shape != (units,):
        raise Broken(f"'costs' speaks of {stated.units.numel()} units, and the network has {units}")
    return stated


def _along(subject: Subject, route: Tensor) -> tuple[float, float]:
    """Multiply-adds of one image along a route (L,): counted, and as the costs say."""
    (_, trace), counted = multiply_adds(lambda image: subject.traced(image, Forced(route[None])), subject.images[:1])
    return counted, float(_stated(subject).of(trace.executed[0]))
