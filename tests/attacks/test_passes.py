"""How many passes attacks spend, and what the active set saves without changing a verdict."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import attacks
from robustbench_aig.contracts.defense import NO_DEFENSE
from robustbench_aig.contracts.forward import forward
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.engine.sweep import sweep
from tests.engine import grids


def test_an_fgsm_sweep_costs_one_gradient(plain):
    target = plain.target()
    attacks.make("fgsm")(target, plain.images, plain.labels, [k / 255 for k in range(1, 10)])
    assert (target.passes.forwards == 1).all()
    assert (target.passes.backwards == 1).all()


def test_noise_and_identity_cost_nothing(plain):
    target = plain.target()
    for name in ("identity", "noise"):
        attacks.make(name)(target, plain.images, plain.labels, [0.1])
    assert (target.passes.forwards == 0).all()


def test_textbook_pgd_costs_its_steps(plain):
    target = plain.target()
    attacks.make("pgd:steps=7,stop=false")(target, plain.images, plain.labels, [0.01, 0.02])
    assert (target.passes.forwards == 14).all()
    assert (target.passes.backwards == 14).all()


def test_a_survivor_costs_every_step_and_two_verdicts(plain):
    target = plain.target()
    (images,) = attacks.make("pgd:steps=7")(target, plain.images, plain.labels, [24 / 255])
    survived = ~plain.broken(images)
    assert survived.any()
    assert (target.passes.forwards[survived] == 9).all()
    assert (target.passes.backwards[survived] == 7).all()
    assert target.passes.backwards[~survived].float().mean() < 7


def test_leaving_early_changes_no_verdict(plain):
    """The full loop, judged at every iterate by hand."""
    spec, budget = "pgd:loss=ce,steps={},stop={}", [24 / 255]
    (early,) = attacks.make(spec.format(8, "true"))(plain.target(), plain.images, plain.labels, budget)
    ever = plain.broken(plain.images)
    for steps in range(1, 9):  # the step size does not depend on the number of steps
        (last,) = attacks.make(spec.format(steps, "false"))(plain.target(), plain.images, plain.labels, budget)
        ever |= plain.broken(last)
    assert torch.equal(plain.broken(early), ever)


def test_where_a_success_decides_nothing_no_image_leaves(plain):
    target = plain.target(transfer=True)
    (images,) = attacks.make("pgd:steps=7")(target, plain.images, plain.labels, [24 / 255])
    assert (target.passes.backwards == 7).all()
    assert (plain.broken(images) | ~plain.broken(plain.images)).all()


def test_a_random_target_is_judged_on_draws_that_its_gradient_never_saw(gated, monkeypatch):
    target = gated.target("stochastic", draws=2)
    seen: set[tuple[str, int]] = set()

    def spy(model, gating, images, draws, **rest):
        differentiable = images.requires_grad
        seen.update(("gradient" if differentiable else draws.stage, draw) for draw in draws.numbers)
        assert not differentiable or draws.stage == "craft"
        return forward(model, gating, images, draws, **rest)

    monkeypatch.setattr("robustbench_aig.contracts.target.forward", spy)
    attacks.make("pgd:steps=3")(target, gated.images, gated.labels, [24 / 255])
    assert {draw for stage, draw in seen if stage == "gradient"} == set(range(6))
    assert {stage for stage, _ in seen} == {"gradient", "select"}
    assert {draw for stage, draw in seen if stage == "select"} >= set(range(8))


# Survivors: what each native attack may spend at one budget on an image that it never breaks, as (forwards, backwards).
# One forward pass is the clean verdict; each run ends with one for its last iterate.
WORST = {
    "fgsm": (1, 1),
    "bim:steps=5": (1 + 5 + 1, 5),
    "mifgsm:steps=5": (1 + 5 + 1, 5),
    "pgd:steps=5": (1 + 5 + 1, 5),
    "pgd:steps=5,restarts=2": (1 + 2 * (5 + 1), 10),
    "apgd:steps=10": (1 + 10 + 1, 10),
    "apgd-t:steps=10,classes=3": (1 + 3 * (10 + 1), 30),
    "square:queries=20": (1 + 20 + 2, 0),
    "square:queries=400,pace=2": (1 + 1 + 200, 0),  # a ball of 1e-6 is hopeless at the first look
    "fmn:steps=10": (1 + 10 + 2, 10),
    "auto:steps=10,classes=3,queries=20": (1 + 22 + 33 + 12 + 22, 60),
    "auto:steps=10,classes=3,queries=400": (1 + 22 + 33 + 12 + 1 + 200, 60),
}


@pytest.mark.parametrize("name", WORST)
def test_what_an_attack_spends_on_an_image_that_it_never_breaks(plain, name):
    target, right = plain.target(), ~plain.broken(plain.images)
    attacks.make(name)(target, plain.images, plain.labels, [1e-6])
    forwards, backwards = WORST[name]
    assert (target.passes.forwards[right] == forwards).all()
    assert (target.passes.backwards[right] == backwards).all()


@pytest.mark.parametrize("name", [name for name in WORST if name != "fgsm"])
def test_an_image_that_is_wrong_already_costs_one_look(plain, name):
    target, wrong = plain.target(), plain.broken(plain.images)
    labels = plain.labels.clone()
    labels[0] = (labels[0] + 1) % 10  # one at least is wrong
    wrong[0] = True
    attacks.make(name)(target, plain.images, labels, [1e-6])
    assert (target.passes.forwards[wrong] == 1).all()
    assert (target.passes.backwards[wrong] == 0).all()


def test_giving_up_on_hopeless_images_loses_none_that_square_breaks(plain):
    budget, spent, broken = [32 / 255], [], []
    for pace in (0, 2):
        target = plain.target()
        (images,) = attacks.make(f"square:queries=1000,pace={pace}")(target, plain.images, plain.labels, budget)
        spent.append(target.passes.forwards)
        broken.append(plain.broken(images))
    assert 0 < broken[0].sum() < len(broken[0])
    assert torch.equal(*broken)
    assert (spent[1] <= spent[0]).all()
    assert spent[1][~broken[1]].float().mean() < 0.75 * spent[0][~broken[0]].float().mean()


class Syncs(TorchDispatchMode):
    """Counts operations whose result the host waits for."""

    WAITED_FOR = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else []
        masked = any(index is not None and index.dtype == torch.bool for index in indices)
        self.count += name in self.WAITED_FOR or masked
        return operation(*args, **(kwargs or {}))


STEPS = {
    "pgd:steps={},stop=false": 0,
    "pgd:steps={}": 1,
    "mifgsm:steps={}": 1,
    "apgd:steps={}": 1,
    "apgd-t:steps={},classes=1": 1,
    "fmn:steps={}": 1,
    "square:queries={}": 1,
    "square:queries={},pace=2": 1,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_waits_for_the_device_only_to_learn_who_leaves(plain, name):
    def waits(steps):
        with Syncs() as syncs:
            attacks.make(name.format(steps))(plain.target(), plain.images, plain.labels, [1e-6])
        return syncs.count

    assert waits(30) - waits(20) <= 10 * STEPS[name]


@pytest.mark.parametrize(("gating", "draws", "most"), [("deterministic", 1, 7), ("stochastic", 3, 32)])
@pytest.mark.parametrize("name", ["pgd:steps=6", "apgd:steps=6", "fmn:steps=6", "auto:steps=4,classes=2,queries=8"])
def test_a_batch_may_be_larger_than_a_pass(gated, name, gating, draws, most):
    """Same images and counts, up to rounding in sums, and never more images times draws in the network than allowed."""
    entered = []
    hook = gated.network.trunk.conv1.register_forward_pre_hook(lambda module, inputs: entered.append(len(inputs[0])))
    found = {}
    for at_once in (None, most):
        entered.clear()
        target = gated.target(gating, draws=draws, at_once=at_once)
        images = attacks.make(name)(target, gated.images, gated.labels, [8 / 255, 24 / 255])
        found[at_once] = images, target.passes
        assert max(entered) <= (at_once or 10_000)
    hook.remove()
    (whole, counted), (parts, own) = found.values()
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)
    assert torch.equal(counted.forwards, own.forwards)
    assert torch.equal(counted.backwards, own.backwards)


def test_passes_stay_full_while_images_leave(plain):
    """Three batches of eight beside one of 24 in passes of eight: the same passes per image in fewer calls."""
    calls = []
    hook = plain.network.conv1.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    attack, budget = attacks.make("pgd:steps=10"), [48 / 255]
    whole = plain.target(at_once=8)
    attack(whole, plain.images, plain.labels, budget)
    together = calls.copy()
    calls.clear()
    target = plain.target()
    for rows in torch.arange(len(plain.images)).split(8):
        attack(target.take(rows), plain.images[rows], plain.labels[rows], budget)
    hook.remove()
    assert torch.equal(whole.passes.forwards, target.passes.forwards)
    assert sum(together) == sum(calls)
    assert len(together) < 0.8 * len(calls)


def test_carrying_over_equals_the_worst_case_over_smaller_budgets(plain):
    budgets = [k / 255 for k in (24, 48, 72, 96)]
    carried, alone = plain.target(), plain.target()
    with_carry = attacks.make("pgd:steps=6,loss=ce")(carried, plain.images, plain.labels, budgets)
    each = attacks.make("pgd:steps=6,loss=ce,carry=false")(alone, plain.images, plain.labels, budgets)
    worst = plain.broken(each).long().cummax(0).values.bool()
    assert worst[0].sum() < worst[-1].sum()
    assert torch.equal(plain.broken(with_carry), worst)
    assert (carried.passes.backwards <= alone.passes.backwards).all()
    assert carried.passes.backwards.sum() < alone.passes.backwards.sum()


@pytest.mark.parametrize("attack", ["fgsm", "pgd:steps=3"])
def test_a_sweep_cell_makes_no_pass_that_is_not_in_its_tables(tmp_path, attack):
    """Images entering the network: the clean scores, the attack's own passes, and one scoring pass per epsilon."""
    settings = grids.settings(
        models=[grids.classifier("resnet20")], attacks=[attacks.make(attack)], defenses=(NO_DEFENSE,), draws=1
    )
    entered = []
    network = settings.models[0].network
    hook = network.conv1.register_forward_pre_hook(lambda module, inputs: entered.append(len(inputs[0])))
    sweep(settings, tmp_path / "run")
    hook.remove()
    folder = RunFolder(tmp_path / "run")
    rows = [row for cell in folder.finished() for row in folder.result(cell)["rows"]]
    images, epsilons = len(settings.dataset), len(settings.epsilons)
    (spent,) = {row["forwards_per_image"] for row in rows if row["attack"] != "none"}
    assert sum(entered) == round(images * (1 + spent + epsilons))
