"""What a network that decides must do: ask for what it declares, and do what the policy says, image by image."""

from math import log

import torch

from robustbench_aig.conformance.case import (
    FOLLOW,
    SLACK,
    NotApplicable,
    Outcome,
    Subject,
    dynamic,
    failed,
    far,
    guarded,
    passed,
)
from robustbench_aig.contracts.enumeration import enumerate_routes
from robustbench_aig.contracts.network import Stepwise, sampled, training_flag
from robustbench_aig.contracts.policy import Deterministic, Forced, Policy, Stochastic
from robustbench_aig.contracts.routing import exact

THRESHOLDS = (0.5, 0.3, 0.9)

DRAWS = 32
"""Draws of each image whose rates are held against their chances."""

CHANCE = 1e-6
"""The probability at most with which a sound network fails the test of sampling."""

ROUTES = 64
"""All routes are forced, or enumerated, where there are so many or fewer."""


@dynamic("plain calls")
def plain_calls(subject: Subject) -> Outcome:
    """A plain call gives what the network gives under its own policy, or the usual thresholds."""
    subject.require_steady()
    policy = getattr(subject.network, "policy", None)
    with torch.no_grad():
        logits, _ = subject.traced(subject.images, policy if isinstance(policy, Policy) else Deterministic())
    apart = far(logits[subject.clear], subject.clean[subject.clear])
    if apart > subject.slack:
        remedy = "leave 'forward' as it is, and write 'run' alone"
        return failed(f"a plain call and 'traced' differ by {apart:.2g}", remedy)
    return passed(f"a plain call and 'traced' differ by {apart:.1g}")


@dynamic("decisions repeat")
def repeats(subject: Subject) -> Outcome:
    """Two passes under one threshold decide alike."""
    trace = subject.decided[1]
    changed = int((subject.again.open != trace.open).sum())
    if changed:
        return failed(f"{changed} of {trace.open.numel()} decisions change from pass to pass", FOLLOW)
    return passed(f"two passes decide alike; {trace.open[trace.reached].mean():.0%} of the units that are reached run")


@dynamic("own decisions forced")
def own_forced(subject: Subject) -> Outcome:
    """Forcing what a network decides anyway changes nothing."""
    subject.require_steady()
    for policy in (Deterministic(), Stochastic(subject.noise(1)[0], "none")):
        with torch.no_grad():
            logits, trace = subject.traced(subject.images, policy)
            again, forced = subject.traced(subject.images, Forced(trace.open))
        apart = far(logits, again)
        if not torch.equal(trace.open, forced.open):
            return failed("decisions change when they are forced to be what they are", FOLLOW)
        if apart > subject.slack:
            return failed(f"logits move by {apart:.2g} when decisions are forced to be what they are", FOLLOW)
    return passed("thresholded and sampled decisions give the same logits when forced")


@dynamic("other decisions forced")
def other_forced(subject: Subject) -> Outcome:
    """A forced route is taken, whatever the network says of it."""
    subject.require_steady()
    layout = subject.dynamic.layout
    everything = subject.everything
    if layout.count <= ROUTES:
        routes = layout.routes().to(everything)
    else:
        middle = layout.middle().to(everything)
        routes = torch.cat([everything[None], middle[None], subject.beside(everything), subject.beside(middle)])
    for route in routes:
        with torch.no_grad():
            trace = subject.traced(subject.images[:2], Forced(route[None]))[1]
        wrong = (trace.open != route * layout.reached(route)).any(0)
        if wrong.any():
            return failed(f"'{layout.names[int(wrong.nonzero()[0])]}' does not do what it is forced to", FOLLOW)
    return passed(f"{len(routes)} of {layout.count:,} routes are taken as forced")


@dynamic("margins and decisions")
def margins(subject: Subject) -> Outcome:
    """Under a threshold, the units whose margin exceeds it run, and of a router those of the largest scores."""
    subject.require_steady()
    layout = subject.dynamic.layout
    for threshold in THRESHOLDS:
        with torch.no_grad():
            trace = subject.traced(subject.images, Deterministic(threshold))[1]
        lead = trace.margin - layout.shift(threshold).to(trace.margin)
        wrong = (((lead > 0) != (trace.open > 0.5)) & trace.reached & (lead.abs() > SLACK)).any(0)
        if wrong.any():
            name = layout.names[int(wrong.nonzero()[0])]
            return failed(f"at the threshold {threshold:g}, '{name}' decides against its margin", FOLLOW)
    return passed(f"they agree at the thresholds {', '.join(f'{threshold:g}' for threshold in THRESHOLDS)}")


@dynamic("sampling")
def sampling(subject: Subject) -> Outcome:
    """Sampled units run as often as their chances say, both over all draws and where they should run more often than
    not, against where they should not.

    How far the sums may be off is bounded for draws whose chances depend on those before (Freedman 1975, Theorem 1.6).
    """
    names = subject.dynamic.layout.names
    trace = guarded(sampled, subject.dynamic, subject.images, subject.noise(DRAWS))[1]
    chance = trace.prob.double()
    known = torch.ones_like(chance[0, 0], dtype=torch.bool)
    for span, chosen in trace.layout.routers:
        known[span] = exact(span.stop - span.start, chosen)
    if not known.any():
        raise NotApplicable("the chances of routers that choose so many units are not summed up")
    off = torch.where(trace.reached, trace.open.double() - chance, 0.0)
    sums = torch.stack([(off * sign).sum((0, 1)).abs() for sign in (1, torch.where(chance > 0.5, 1, -1))])
    variance = torch.where(trace.reached, chance * (1 - chance), 0.0).sum((0, 1))
    level = log(2 * sums.numel() / CHANCE)
    allowed = level / 3 + (level**2 / 9 + 2 * level * variance).sqrt()
    share = torch.where(known, sums.amax(0) / allowed, 0.0)
    worst, total = int(share.argmax()), DRAWS * len(subject.images)
    if share[worst] > 1:
        symptom = f"'{names[worst]}' decides in {sums[:, worst].max():.0f} of {total} draws against its chances"
        return failed(f"{symptom}, and {allowed[worst]:.0f} are within chance", FOLLOW)
    return passed(f"over {total} draws, units are off by {share[worst]:.0%} of what is within chance at most")


@dynamic("draws stand alone")
def draws_alone(subject: Subject) -> Outcome:
    """The draw of an image depends neither on its batch, nor on its place, nor on the draws made with it."""
    subject.require_steady()
    images, noise = subject.images, subject.noise(3)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(subject.seed)).to(images.device)
    back = order.argsort()
    with torch.no_grad():
        draws = [subject.traced(images, Stochastic(draw, "none")) for draw in noise]
        turned = subject.traced(images[order], Stochastic(noise[0][order], "none"))
        single = [
            subject.traced(image[None], Stochastic(own[None], "none"))
            for image, own in zip(images, noise[0], strict=True)
        ]
    together = guarded(sampled, subject.dynamic, images, noise)
    logits, opened = (torch.stack(parts) for parts in zip(*((one, trace.open) for one, trace in draws), strict=True))
    found = {
        "in another order": (turned[0][back] - logits[0], turned[1].open[back] - opened[0]),
        "one by one": (
            torch.cat([one for one, _ in single]) - logits[0],
            torch.cat([trace.open for _, trace in single]) - opened[0],
        ),
        "with other draws": (together[0] - logits, together[1].open - opened),
    }
    for how, (moved, turned_over) in found.items():
        flips = int((turned_over != 0).sum())
        if flips:
            return failed(f"{how}, {flips} decisions differ under the same noise", "let each image decide by itself")
        apart = far(moved, torch.zeros_like(moved))
        if apart > subject.slack:
            remedy = "let what the network keeps between decisions be tensors with the images first"
            return failed(f"{how}, logits differ by {apart:.2g} under the same noise", remedy)
    return passed(f"{' and '.join(found)}, the same noise gives the same")


@dynamic("training flag")
def training(subject: Subject) -> Outcome:
    """Decisions follow the policy alone, whatever the training flag, which attack libraries switch."""
    subject.require_steady()
    for policy in (Deterministic(), Stochastic(subject.noise(1)[0], "none")):
        with torch.no_grad():
            trace = subject.traced(subject.images, policy)[1]
            with training_flag(subject.network):
                flagged = subject.traced(subject.images, policy)[1]
        changed = int((trace.open != flagged.open).sum())
        if changed:
            return failed(f"{changed} decisions change with the training flag", "decide without self.training")
    return passed("no decision changes with it")


@dynamic("enumeration")
def enumeration(subject: Subject) -> Outcome:
    """The routes of a stepwise network, enumerated together, give what each gives alone, and their probabilities sum
    to 1."""
    subject.require_steady()
    network = subject.dynamic
    if not isinstance(network, Stepwise):
        raise NotApplicable("only networks derived from Stepwise run their routes together")
    if network.layout.count > ROUTES:
        raise NotApplicable(f"it has {network.layout.count:,} routes, and up to {ROUTES} are tried")
    images = subject.images[:2]
    with torch.no_grad():
        every = guarded(enumerate_routes, network, images)
        alone = [subject.traced(images, Forced(route[None]))[0] for route in network.layout.routes().to(images)]
    apart, off = far(every.logits, torch.stack(alone)), far(every.mass, torch.ones_like(every.mass))
    if apart > subject.slack:
        return failed(f"run together, routes give other logits than alone, by {apart:.2g}", "change no state in place")
    if off > SLACK:
        return failed(f"the routes' probabilities miss a sum of 1 by {off:.2g}", "let 'score' read its state alone")
    return passed(f"all {network.layout.count} routes give the same together and alone")
