"""Every attack of torchattacks and foolbox by name, and that none of the libraries' habits gets out."""

import copy
import inspect
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import attacks
import defenses
from attacks.libraries import foolbox, survey, torchattacks
from attacks.libraries.adapter import Attackable
from attacks.libraries.capability import Capability
from robustbench_aig.contracts.crafting import craft
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.noise import logistic
from robustbench_aig.contracts.norms import size
from robustbench_aig.contracts.policy import Stochastic
from robustbench_aig.errors import UsageError

RUNNABLE = [f"{library}:{entry}" for library, table in survey.LIBRARIES.items() for entry in table.names()]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "library-attacks.md"

NO_EFFECT = {"torchattacks:VANILA", "foolbox:InversionAttack"}
"""The one does nothing, and the negatives of these images lie further away than the budget."""

PLAIN = Capability("", ("linf",))


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return survey.network()


class Logits(nn.Module):
    """What ``change`` makes of a network's logits."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images):
        return self.change(self.network(images))


def run(name, model, count=4, budgets=None, **parameters):
    attack = attacks.make(name, **parameters)
    aimed = survey.target(model, count)
    images, labels = survey.images(count, seed=2)
    return craft(attack, aimed, images, labels, budgets or survey.BUDGETS[attack.norm]), images, labels, aimed.passes


def generators():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_tables_cover_the_libraries():
    assert set(torchattacks.TABLE) == set(torchattacks.load().__all__)
    assert len(torchattacks.TABLE) == 39
    library = foolbox.load().attacks
    classes = {
        name: value for name, value in vars(library).items() if inspect.isclass(value) and value.__name__ == name
    }
    concrete = {
        name for name, value in classes.items() if issubclass(value, library.Attack) and not inspect.isabstract(value)
    }
    assert set(foolbox.TABLE) == concrete
    assert len(concrete) == 58


@pytest.mark.parametrize("name", RUNNABLE)
def test_runs_within_its_budgets_and_leaves_everything_as_it_was(name, network):
    torch.manual_seed(5)
    before, weights = generators(), [parameter.clone() for parameter in network.parameters()]
    target, crafted = survey.attempt(name, network)
    assert generators() == before
    assert not crafted.invalid.any()
    library, _, entry = name.partition(":")
    capability = survey.LIBRARIES[library].TABLE[entry]
    images, labels = survey.images(3, seed=2)
    for found, budget in zip(crafted.images, survey.BUDGETS[capability.norms[0]], strict=True):
        assert (size(found - images, capability.norms[0]) <= budget + 1e-5).all()
    changed = crafted.l2[-1] > 0
    assert changed.any() != (name in NO_EFFECT)
    if capability.access == "white-box":
        assert (network(crafted.images[-1]).argmax(1) != labels).any()
    assert bool(target.passes.forwards.min() > 0) == (capability.access != "none")
    assert bool(target.passes.backwards.min() > 0) == (capability.access == "white-box")
    assert target.passes.forwards.max() - target.passes.forwards.min() <= 1
    for parameter, weight in zip(network.parameters(), weights, strict=True):
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, weight)
    torch.manual_seed(6)
    assert torch.equal(survey.attempt(name, network)[1].images, crafted.images)


@pytest.mark.parametrize("name", sorted(set(RUNNABLE) - {"torchattacks:AutoAttack", "foolbox:BoundaryAttack"}))
@pytest.mark.parametrize("right", [True, False])
def test_takes_one_image_even_a_misclassified_one(name, right, network):
    library, _, entry = name.partition(":")
    attack = survey.LIBRARIES[library].build(entry, **survey.QUICK.get(name, {}))
    images, labels = survey.images(1, seed=2)
    aim = labels if right else (labels + 1) % survey.CLASSES
    crafted = craft(attack, survey.target(network, 1), images, aim, survey.BUDGETS[attack.norm])
    assert crafted.images.shape == (2, 1, 3, survey.SIZE, survey.SIZE)
    assert not crafted.invalid.any()


def test_the_page_in_the_docs_is_what_the_survey_writes():
    text = PAGE.read_text()
    versions = [f"## {library} {table.load().__version__}:" for library, table in survey.LIBRARIES.items()]
    if not all(version in text for version in versions):
        pytest.skip("the page was written for other versions of the libraries")
    assert text == survey.document(lambda name: "yes")


def test_names_and_parameters_are_checked():
    with pytest.raises(UsageError, match="did you mean DIFGSM"):
        attacks.make("torchattacks:DIFSGM")
    with pytest.raises(UsageError, match="did you mean DDNAttack"):
        attacks.make("foolbox:DDNAtack")
    with pytest.raises(UsageError, match="cannot run here: it trains more models"):
        attacks.make("torchattacks:LGV")
    with pytest.raises(UsageError, match="cannot run here: it needs numba"):
        attacks.make("foolbox:L2BrendelBethgeAttack")
    with pytest.raises(UsageError, match="no parameter 'step'; it takes: alpha, steps, random_start"):
        attacks.make("torchattacks:PGD:step=3")
    with pytest.raises(UsageError, match="no parameter 'eps'"):
        attacks.make("torchattacks:PGD:eps=8/255")
    with pytest.raises(UsageError, match="'steps' cannot be 'many'"):
        attacks.make("foolbox:DDNAttack:steps=many")
    with pytest.raises(UsageError, match=r"'steps' cannot be '2\.5'"):
        attacks.make("torchattacks:PGD:steps=2.5")
    with pytest.raises(UsageError, match="works in l2, not linf"):
        attacks.make("foolbox:DDNAttack", norm="linf")
    with pytest.raises(UsageError, match="untargeted here"):
        attacks.make("torchattacks:PGD", goal="random")
    with pytest.raises(UsageError, match="two attacks or more"):
        attacks.make("torchattacks:MultiAttack:attacks=PGD")
    with pytest.raises(UsageError, match="'DeepFool', which takes no budget"):
        attacks.make("torchattacks:MultiAttack:attacks=PGDL2+DeepFool", norm="l2")
    assert UsageError.exit_code == 2


def test_colour_attacks_refuse_grey_images(network):
    attack = attacks.make("torchattacks:TIFGSM")
    with pytest.raises(UsageError, match="3 channels, not 1"):
        attack.check_target(survey.target(network, 1), torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long))


def test_an_attacker_who_knows_the_noise_of_each_image_is_refused(gated):
    target = gated.target("stochastic", draws=2, fixed_noise=True, gradient_stage="score")
    with pytest.raises(UsageError, match="own noise"):
        attacks.make("torchattacks:FGSM")(target, gated.images, gated.labels, [0.1])


def test_norm_is_a_choice_where_the_library_has_one(network):
    assert attacks.make("torchattacks:APGD", norm="l2").norm == "l2"
    crafted, *_ = run("foolbox:HopSkipJumpAttack:steps=3", network, norm="linf", budgets=[0.3])
    assert (crafted.linf <= 0.3 + 1e-6).all()
    assert attacks.make("foolbox:L1FMNAttack").norm == "l1"


def test_settings_hold_every_default_and_tell_attacks_apart():
    attack = attacks.make("torchattacks:PGD")
    settings = attack.settings()
    assert settings["parameters"] == {"alpha": None, "steps": 10, "random_start": True}
    assert settings["version"] == torchattacks.load().__version__
    assert json.loads(json.dumps(settings)) == settings
    assert json.dumps(attacks.make("torchattacks:Pixle").settings())
    assert attack.name == attack.label == "torchattacks:PGD"
    assert attacks.make("torchattacks:PGD:steps=40,alpha=1/255").label == f"torchattacks:PGD:steps=40,alpha={1 / 255}"
    assert (attack.iterated, attack.needs_gradient) == (True, True)
    step, noise = attacks.make("foolbox:L2FastGradientAttack"), attacks.make("torchattacks:GN")
    assert (step.iterated, step.needs_gradient) == (False, True)
    assert (noise.iterated, noise.needs_gradient) == (False, False)
    assert attack == attacks.make("torchattacks:PGD")
    assert len({attack, attacks.make("torchattacks:PGD"), attacks.make("torchattacks:PGD:steps=40")}) == 2


def test_tables_import_neither_library_nor_torch():
    code = (
        "import sys\nfrom attacks import registry\n"
        "assert 'PGD' in registry.family_names('torchattacks') and 'DDNAttack' in registry.family_names('foolbox')\n"
        "assert not {'torch', 'foolbox', 'torchattacks'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_found_at_a_budget_does_not_depend_on_the_other_budgets(network):
    alone = run("torchattacks:PGD", network, budgets=[0.05])[0]
    among = run("torchattacks:PGD", network, budgets=[0.01, 0.05])[0]
    assert torch.equal(alone.images[0], among.images[1])


def test_fgsm_is_bit_equal_with_the_libraries(network):
    images, labels = survey.images(4, seed=2)
    budgets = [1 / 255, 8 / 255]
    ours = attacks.make("torchattacks:FGSM")(survey.target(network, 4), images, labels, budgets)
    again = attacks.make("foolbox:LinfFastGradientAttack")(survey.target(network, 4), images, labels, budgets)
    for number, budget in enumerate(budgets):
        theirs = torchattacks.load().FGSM(network, eps=budget)(images, labels)
        assert torch.equal(ours[number], theirs)
        assert torch.equal(again[number], theirs)


def test_steps_follow_the_budget_unless_given(network):
    images, labels = survey.images(2, seed=2)
    model = Attackable(survey.target(network, 2), images, labels, PLAIN)
    assert attacks.make("torchattacks:PGD")._build(model, images, 0.1).alpha == pytest.approx(0.025)
    assert attacks.make("torchattacks:PGD:alpha=0.01")._build(model, images, 0.1).alpha == 0.01
    assert attacks.make("torchattacks:PIFGSM")._build(model, images, 0.1).max_epsilon == 0.1
    crafted, _, _, _ = run("torchattacks:PGD:random_start=false", network, budgets=[1 / 255, 64 / 255])
    assert crafted.linf[1].min() == pytest.approx(64 / 255, abs=1e-5)  # two 255ths a step would not get there


def test_autoattack_runs_for_a_hundred_steps_and_targets_the_classes_that_there_are(network):
    images, labels = survey.images(2, seed=2)
    model = Attackable(survey.target(network, 2), images, labels, PLAIN)
    parts = attacks.make("torchattacks:AutoAttack")._build(model, images, 0.1)._autoattack.attacks
    assert [getattr(part, "steps", None) for part in parts] == [100, 100, 100, None]
    assert parts[1].n_target_classes == survey.CLASSES - 1


def test_cw_works_where_logits_are_negative(network):
    shifted = Logits(network, lambda logits: logits - 100)
    images, labels = survey.images(4, seed=2)
    with frozen(network):  # the library itself leaves gradients on weights
        raw = torchattacks.load().CW(shifted)(images, labels)
    assert (raw - images).abs().max() < 1e-5
    crafted, _, _, _ = run("torchattacks:CW", shifted, budgets=[2.0])
    assert (network(crafted.images[0]).argmax(1) != labels).all()


@pytest.mark.parametrize("name", ["foolbox:L2CarliniWagnerAttack", "foolbox:EADAttack"])
def test_black_images_of_a_failed_attack_are_not_successes(name, network):
    stubborn = Logits(network, lambda logits: 0 * logits + torch.eye(survey.CLASSES)[0])
    attack = f"{name}:steps=3,binary_search_steps=2"
    images = survey.images(4, seed=2)[0]
    labels = torch.zeros(4, dtype=torch.long)
    found = attacks.make(attack)(survey.target(stubborn, 4), images, labels, [1.0, 1e4])
    assert torch.equal(found[0], images)
    assert (found[1] == 0).all()
    crafted = craft(attacks.make(attack), survey.target(stubborn, 4), images, labels, [1.0, 1e4])
    assert crafted.invalid[1].all()
    assert torch.equal(crafted.images[1], images)


def test_images_that_are_not_finite_are_invalid(network):
    saturated = Logits(network, lambda logits: 1000 * logits)
    crafted, images, _, _ = run("foolbox:NewtonFoolAttack:steps=10", saturated)
    assert crafted.invalid.all()
    assert torch.equal(crafted.images[0], images)


def test_minimal_attacks_run_once_and_count_within_the_budget_only(network):
    budgets = [0.2, 0.5, 2.0]
    crafted, images, labels, passes = run("torchattacks:DeepFool", network, budgets=budgets)
    once = run("torchattacks:DeepFool", network, budgets=[2.0])[3]
    assert torch.equal(passes.forwards, once.forwards)
    last = crafted.images[-1]
    assert (network(last).argmax(1) != labels).all()
    for found, budget in zip(crafted.images, budgets, strict=True):
        within = (last - images).flatten(1).norm(dim=1) <= budget
        assert torch.equal(found, torch.where(within[:, None, None, None], last, images))


def test_decision_attacks_leave_images_without_a_start(network):
    stubborn = Logits(network, lambda logits: 0 * logits + torch.eye(survey.CLASSES)[0])
    images = survey.images(2, seed=2)[0]
    attack = attacks.make("foolbox:HopSkipJumpAttack:steps=2")
    found = attack(survey.target(stubborn, 2), images, torch.zeros(2, dtype=torch.long), [5.0])
    assert torch.equal(found[0], images)


def test_modes_and_generators_are_restored_when_a_model_fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout()
            self.norm.weight.requires_grad_(False)

        def forward(self, images):
            assert not self.norm.training
            raise RuntimeError("no logits")

    model = Fails()
    model.drop.eval()
    before = generators()
    for name in ("torchattacks:PGD", "foolbox:LinfProjectedGradientDescentAttack"):
        with pytest.raises(RuntimeError, match="no logits"):
            run(name, model)
    assert (model.training, model.norm.training, model.drop.training) == (True, True, False)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True]
    assert generators() == before


def test_runs_where_gradients_are_off_and_on_any_memory_format(network):
    images, labels = survey.images(3, seed=2)
    target = survey.target(network, 3)
    plain = attacks.make("torchattacks:PGD")(target, images, labels, [0.05])
    with torch.inference_mode():
        strided = images.contiguous(memory_format=torch.channels_last)
        other = attacks.make("torchattacks:PGD")(target, strided, labels, [0.05])
    assert torch.equal(plain, other)
    assert not plain.requires_grad


def test_passes_are_counted_per_image(network):
    passes = run("torchattacks:PGD:steps=7", network, budgets=[0.01, 0.02])[3]
    assert passes.forwards.tolist() == passes.backwards.tolist() == passes.gradients.tolist() == [14] * 4
    assert passes.stalled.tolist() == [0] * 4
    flat = Logits(network, lambda logits: 0 * logits)
    assert run("torchattacks:PGD:steps=7", flat, budgets=[0.01])[3].stalled.tolist() == [7] * 4


def test_a_random_model_is_one_function_of_the_image(gated):
    target = gated.target("stochastic", draws=5)
    model = Attackable(target, gated.images, gated.labels, PLAIN)
    logits = model(gated.images)
    assert torch.equal(model(gated.images), logits)
    order = torch.arange(len(gated.images) - 1, -1, -2)
    torch.testing.assert_close(model(gated.images[order]), logits[order], atol=1e-5, rtol=1e-5)
    noise = logistic(0, "craft", torch.tensor([-1]), len(gated.network.layout), range(5))[:, 0]
    probabilities = [
        gated.network.traced(gated.images, Stochastic(row.expand(len(gated.images), -1)))[0].softmax(1) for row in noise
    ]
    assert not torch.allclose(probabilities[0], probabilities[1])
    torch.testing.assert_close(logits.exp(), torch.stack(probabilities).mean(0), atol=1e-5, rtol=1e-4)
    model.settle()
    assert target.passes.forwards.min() >= 10


def test_a_model_without_randomness_is_itself(gated):
    model = Attackable(gated.target("deterministic", draws=5), gated.images, gated.labels, PLAIN)
    assert torch.equal(model(gated.images), gated.network(gated.images))


def test_outputs_are_fresh_and_training_modes_out_of_reach(gated):
    model = Attackable(gated.target("deterministic"), gated.images, gated.labels, PLAIN)
    logits = model(gated.images)
    model(gated.images).fill_(7)
    model.train()
    assert not gated.network.training
    assert torch.equal(model(gated.images), logits)
    assert next(model.parameters()).device == gated.images.device


def test_gates_pass_gradients_as_the_attacker_wants(gated):
    gradients = []
    for kind in ("none", "straight-through"):
        model = Attackable(gated.target("stochastic", draws=3, gate_gradient=kind), gated.images, gated.labels, PLAIN)
        images = gated.images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(model(images).square().sum(), images)[0])
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("specification", ["jpeg:75", "resize-pad"])
def test_the_defence_stands_in_front_with_its_surrogate(specification, plain):
    defense = defenses.make(specification)
    surrogate = defense.surrogates[-1] if defense.surrogates else None
    target = plain.target(draws=3, defense=defense, surrogate=surrogate)
    model = Attackable(target, plain.images, plain.labels, PLAIN)
    if defense.deterministic:
        torch.testing.assert_close(model(plain.images), plain.network(defense(plain.images)))
    assert torch.equal(model(plain.images), model(plain.images))
    images = plain.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    assert (gradient.flatten(1) != 0).any(1).all()


@pytest.mark.parametrize(
    "name",
    [
        "foolbox:HopSkipJumpAttack:steps=4,initial_gradient_eval_steps=10,max_gradient_eval_steps=20",
        "foolbox:L2DeepFoolAttack",
        "foolbox:DDNAttack:steps=20",
        "torchattacks:DeepFool:steps=10",
        "torchattacks:APGD",
        "torchattacks:PGD",
        "torchattacks:Square:n_queries=20",
    ],
)
def test_attacks_a_random_model(name, gated):
    target = gated.target("stochastic", draws=4).take(torch.arange(6))
    attack = attacks.make(name)
    budgets = {"linf": [0.02, 0.3], "l2": [0.2, 3.0]}[attack.norm]
    crafted = craft(attack, target, gated.images[:6], gated.labels[:6], budgets)
    assert not crafted.invalid.any()
    model = Attackable(target, gated.images[:6], gated.labels[:6], PLAIN)
    right = [(model(images).argmax(1) == gated.labels[:6]).sum() for images in (gated.images[:6], crafted.images[-1])]
    assert right[1] < right[0]
    assert target.passes.forwards[:6].min() >= 4
    assert (target.passes.forwards[6:] == 0).all()


@pytest.mark.parametrize(
    "name", ["torchattacks:PGDL2", "torchattacks:SparseFool", "torchattacks:PGD", "foolbox:DDNAttack"]
)
def test_libraries_that_view_gradients_run_on_networks_in_channels_last(network, name):
    strided = copy.deepcopy(network).to(memory_format=torch.channels_last)
    own, plain = (run(name, model, count=2)[0] for model in (strided, network))
    assert not own.invalid.any()
    torch.testing.assert_close(own.images, plain.images, atol=1e-4, rtol=0)
    assert (own.linf > 0).any()


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("torchattacks:AutoAttack", 3, "needs 4 classes or more, not 3"),
        ("torchattacks:APGDT", 2, "needs 4 classes or more, not 2"),
        ("torchattacks:MultiAttack:attacks=PGD+APGDT", 3, "needs 4 classes or more, not 3"),
        ("torchattacks:APGD:loss=dlr", 2, "needs 3 classes or more, not 2"),
        ("torchattacks:TIFGSM", 6, "takes images of 3 channels, not 1"),
        ("apgd-t", 3, "the DLR loss needs 4 classes or more, not 3; use loss=margin"),
        ("worst:attacks=fgsm+apgd-t", 3, "needs 4 classes"),
        ("pgd:loss=dlr", 2, "needs 3 classes"),
        ("fgsm:loss=dlr,goal=random", 3, "needs 4 classes"),
    ],
)
def test_what_an_attack_cannot_do_is_said_before_it_is_run(name, classes, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()
    images, labels = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2).long()
    with pytest.raises(UsageError, match=message):
        attacks.make(name).check_target(survey.target(model, 2), images, labels)


@pytest.mark.parametrize(
    "name", ["torchattacks:APGD", "torchattacks:FAB", "apgd-t:loss=margin", "auto:steps=3,queries=9", "fgsm"]
)
def test_what_an_attack_can_do_with_few_classes_is_not_refused(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    attack, target, labels = attacks.make(name), survey.target(model, 2), model(images).argmax(1)
    attack.check_target(target, images, labels)
    assert not craft(attack, target, images, labels, [0.1]).invalid.any()
