"""What holds for every attack on gates: identities, budgets, monotonicity, order of the batch, and findings."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.gates.base import GateAttack
from attacks.gates.estimators import judge
from robustbench_aig.contracts.enumeration import enumerate_routes, route_number
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.oracle import oracle
from robustbench_aig.contracts.policy import Deterministic, Forced, Stochastic
from robustbench_aig.contracts.target import Reference, Target
from robustbench_aig.errors import UsageError, UserError
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.gate_unit import GateUnit
from robustbench_aig.models.resnet import CifarResNet
from tests.attacks.gates.conftest import CLASSES, N, opinionated

See = Callable[..., Target]

OWN = ["open", "close", "route", "route:to=class/dog", "stealth", "through", "universal", "joint"]
BASELINES = ["ilfo", "gradauto", "gradmdm", "soft-twin", "uniform", "ce", "dc-shift", "sign-noise", "square"]
GATINGS = ["deterministic", "stochastic"]


def build(name: str, **parameters: object) -> GateAttack:
    made = attacks.make(f"gates:{name}", **{"steps": 4, "restarts": 2, **parameters})
    assert isinstance(made, GateAttack)
    return made


def metric(attack: GateAttack, target: Target, images: Tensor, labels: Tensor, points: Tensor) -> Tensor:
    return judge(target, points, attack.goal(target, images, labels), "likely")[0]


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [*OWN, *BASELINES])
def test_images_stay_in_the_ball_and_the_box(
    name: str, norm: str, gating: str, see: See, images: Tensor, labels: Tensor, reference: Reference
) -> None:
    budgets = [2 / 255, 8 / 255] if norm == "linf" else [0.1, 0.5]
    edges = images.clone()
    edges[0], edges[1] = edges[0].round(), 1.0
    found = build(name, norm=norm)(see(gating, reference=reference), edges, labels, budgets)
    assert found.shape == (2, *images.shape)
    assert found.min() >= 0
    assert found.max() <= 1
    delta = (found - edges).flatten(2)
    sizes = delta.abs().amax(2) if norm == "linf" else delta.norm(dim=2)
    assert (sizes <= torch.tensor(budgets)[:, None] + 1e-6).all()
    if name in OWN:  # a baseline that gains nothing returns the clean image
        assert sizes[1].max() > 0.2 * budgets[1]


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["open", "close", "route", "stealth", "through", "joint", "gradmdm"])
def test_the_metric_grows_with_budget_steps_and_restarts(
    name: str, gating: str, see: See, images: Tensor, labels: Tensor
) -> None:
    def reached(budgets: list[float], **parameters: object) -> list[Tensor]:
        attack = build(name, **parameters)
        found = attack(see(gating), images, labels, budgets)
        return [metric(attack, see(gating), images, labels, points) for points in found]

    none = metric(build(name), see(gating), images, labels, images)
    small, large = reached([2 / 255, 8 / 255], steps=12)
    assert (none <= small).all()
    assert (small <= large).all()
    (longer,) = reached([2 / 255], steps=9, restarts=1)
    (shorter,) = reached([2 / 255], steps=4, restarts=1)
    (more,) = reached([2 / 255], steps=4, restarts=3)
    assert (shorter <= longer).all()
    assert (shorter <= more).all()
    assert large.mean() > none.mean()


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["open", "route", "stealth", "through", "joint"])
def test_an_image_is_attacked_alike_in_any_batch(
    name: str, gating: str, see: See, images: Tensor, labels: Tensor
) -> None:
    index = torch.tensor([4, 1])
    target = see(gating)
    whole = build(name)(target, images, labels, [8 / 255])[0]
    part = build(name)(target.take(index), images[index], labels[index], [8 / 255])[0]
    assert torch.allclose(part, whole[index], atol=1e-5)


def spent(target: Target) -> int:
    """Forward and backward passes of all images."""
    return int((target.passes.forwards + target.passes.backwards).sum())


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize(("name", "aim"), [("open", "open"), ("close", "close"), ("route", "flip")])
def test_each_attack_wins_on_its_own_metric_against_baselines_of_no_fewer_passes(
    name: str, aim: str, gating: str, see: See, model: ConvNetAIG
) -> None:
    # hard gates move the metric by whole gates, so a few images tell nothing
    count, steps = (32 if gating == "deterministic" else 6), 20
    images = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(7))
    labels = model.traced(images, Deterministic())[0].argmax(1)
    attack, target, budget = build(name, steps=steps), see(gating, count), [2 / 255]

    def mean(points: Tensor) -> float:
        return metric(attack, see(gating, count), images, labels, points).mean().item()

    own = mean(attack(target, images, labels, budget)[0])
    clean = mean(images)
    for rival in BASELINES:
        passes = 1
        for more in (0, 2, 8):
            other = see(gating, count)
            longer = max(steps, more and steps * spent(target) // passes + more)
            found = build(rival, aim=aim, steps=longer)(other, images, labels, budget)[0]
            passes = spent(other)
            if rival == "dc-shift" or passes >= spent(target):  # a constant shift has no more to try
                break
        assert own >= mean(found) - 1e-6, rival
    assert own > clean


@pytest.mark.parametrize("gating", GATINGS)
def test_a_held_label_is_held(gating: str, see: See, model: ConvNetAIG, images: Tensor, labels: Tensor) -> None:
    attack = build("open:prediction=held", steps=12)
    found = attack(see(gating), images, labels, [8 / 255])[0]
    gain = metric(build("open"), see(gating), images, labels, found) - metric(
        build("open"), see(gating), images, labels, images
    )
    assert (gain >= -1e-6).all()
    assert gain.mean() > 0.02
    if gating == "deterministic":
        assert torch.equal(model.traced(found, Deterministic())[0].argmax(1), labels)


def test_stealth_is_wrong_with_the_same_graph(see: See, model: ConvNetAIG, images: Tensor, labels: Tensor) -> None:
    found = build("stealth", steps=30)(see("deterministic"), images, labels, [8 / 255])[0]
    (_, before), (logits, after) = (model.traced(points, Deterministic()) for points in (images, found))
    assert torch.equal(before.open, after.open)
    assert (logits.argmax(1) != labels).float().mean() > 0.5


def test_through_gates_alone_agrees_with_the_oracle(
    see: See, model: ConvNetAIG, images: Tensor, labels: Tensor
) -> None:
    found = build("through", steps=15, restarts=4)(see("deterministic"), images, labels, [0.1])[0]
    with torch.no_grad():
        graphs = model.traced(found, Deterministic())[1].open
        wrong = model.traced(images, Forced(graphs))[0].argmax(1) != labels
        table = enumerate_routes(model, images).logits.argmax(2) != labels
    known = oracle(model, images, labels, keep=3)
    assert known.complete
    assert torch.equal(known.possible, table.any(0))
    assert torch.equal(wrong, table.gather(0, route_number(model.layout, graphs)[None])[0])
    assert wrong.any()
    assert not (wrong & ~known.possible).any()


def test_the_beam_finds_a_misclassifying_graph_wherever_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opinionated(seed=3)
    images = torch.rand((12, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    labels = model.traced(images, Deterministic())[0].argmax(1)
    complete = oracle(model, images, labels, keep=1)
    monkeypatch.setattr("robustbench_aig.contracts.oracle.LIMIT", 3)
    beam = oracle(model, images, labels, keep=1)
    assert not beam.complete
    assert torch.equal(beam.possible, complete.possible)
    logits, _ = model.traced(images, Forced(beam.graphs[:, 0]))
    assert torch.equal(logits.argmax(1) != labels, beam.wrong[:, 0])


def test_a_universal_perturbation_is_one_for_all_and_carries_over(
    see: See, images: Tensor, labels: Tensor, reference: Reference
) -> None:
    grey = images * 0.5 + 0.25
    target = see("deterministic", reference=reference)
    attack = build("universal", steps=25)
    delta = attack(target, grey, labels, [8 / 255])[0] - grey
    assert torch.allclose(delta, delta[:1].expand_as(delta), atol=1e-6)
    gain = metric(attack, target, grey, labels, grey + delta) - metric(attack, target, grey, labels, grey)
    assert gain.mean() > 0
    assert target.passes.backwards.sum() == 0  # learnt on the reference images, not on these
    by_class = build("universal", per_class=True)(target, grey, labels, [8 / 255])[0] - grey
    for number in labels.unique():
        own = by_class[labels == number]
        assert torch.allclose(own, own[:1].expand_as(own), atol=1e-6)


def test_a_table_names_an_attack_by_what_it_was_given() -> None:
    assert attacks.make("gates:open:prediction=held").label == "gates:open:prediction=held"
    assert attacks.make("gates:close").label == "gates:close"
    assert attacks.make("gates:route:to=101").label == "gates:route:to=101"


def test_passes_are_counted(see: See, images: Tensor, labels: Tensor) -> None:
    target = see("deterministic")
    build("open", steps=4, restarts=1)(target, images, labels, [8 / 255])
    # one to see whether there is a gradient, one for each of 0 … 4 steps, which is also the verdict; one for the clean
    # image; an image with nothing left to gain takes no more
    most = target.passes.backwards.max()
    assert most == 1 + 5
    assert torch.equal(target.passes.forwards, target.passes.backwards + 1)


def blind() -> ConvNetAIG:
    """Gates that ignore the image: every margin is its bias."""
    model = opinionated(seed=1)
    for number, gate in enumerate(model.gates):
        assert isinstance(gate, GateUnit)
        gate.fc2.weight.zero_()
        gate.fc2.bias.copy_(torch.tensor([0.0, 0.5 - number % 2]))
    return model


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("name", ["open", "close", "route", "through"])
def test_gates_without_a_gradient_are_a_finding(
    name: str, gating: str, see: See, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(UserError, match="no gradient reaches the images through the gates"):
        build(name)(see(gating, network=blind()), images, labels, [8 / 255])


def test_gates_that_ignore_the_image_show_no_effect(see: See, images: Tensor, labels: Tensor) -> None:
    null = blind()
    found = build("joint", steps=10)(see("stochastic", network=null), images, labels, [8 / 255])[0]
    noise = logistic(0, "score", torch.arange(N), len(null.layout), [0])[0]
    (_, before), (_, after) = (null.traced(points, Stochastic(noise, "none")) for points in (images, found))
    assert not torch.equal(found, images)
    assert torch.equal(before.open, after.open)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("route:to=101", "it has 3 digits, and the network 6 units"),
        ("route:to=class/horse", "unknown class 'horse'"),
        ("route:to=image/7", "no reference image has id '7'"),
        ("route:to=sideways", "to must be flip"),
    ],
)
def test_bad_targets_are_one_sentence(
    name: str, words: str, see: See, images: Tensor, labels: Tensor, reference: Reference
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        build(name)(see("deterministic", reference=reference), images, labels, [0.1])
    assert "\n" not in str(caught.value)


def test_enumeration_beyond_its_limit_is_one_sentence(see: See, images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(0)
    deep = ConvNetAIG(CifarResNet(38, classes=CLASSES)).eval()
    with pytest.raises(UsageError, match="up to 1024 routes, this model has 262,144"):
        build("open:estimator=exact")(see("stochastic", network=deep), images, labels, [0.1])


def test_a_model_without_gates_is_refused(see: See, images: Tensor, labels: Tensor) -> None:
    plain: nn.Module = CifarResNet(8, classes=CLASSES).eval()
    for name in ("open", "dc-shift", "universal"):
        with pytest.raises(UsageError, match="this model makes none"):
            build(name)(see("none", network=plain), images, labels, [0.1])


def test_attacks_that_learn_from_images_say_so_where_there_are_none(see: See, images: Tensor, labels: Tensor) -> None:
    for name in ("universal", "route:to=class/dog"):
        with pytest.raises(UsageError, match="reference images"):
            build(name)(replace(see("stochastic"), reference=None), images, labels, [0.1])
