"""SkipNet, early exits and experts: the contract, training on digits, and attacks on their decisions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attacks
from robustbench_aig.contracts.enumeration import LIMIT, enumerate_routes
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import DynamicNetwork, costs_of, is_dynamic, multiply_adds, sampled
from robustbench_aig.contracts.policy import Deterministic, Expected, Forced, Stochastic
from robustbench_aig.data import load_dataset
from robustbench_aig.engine.plan import Settings
from robustbench_aig.engine.preflight import preflight
from robustbench_aig.engine.sweep import sweep
from robustbench_aig.errors import UsageError
from robustbench_aig.models.architectures import build
from robustbench_aig.models.checkpoints import Card
from robustbench_aig.models.classifier import Classifier
from robustbench_aig.training.loop import evaluate, train
from robustbench_aig.training.recipe import recipe

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("skipnet20", {}),
    ("skipnet20", {"gate": "recurrent"}),
    ("exit20", {}),
    ("moe20", {}),
    ("moe20", {"experts": 3, "chosen": 2}),
]
IDS = ["skipnet", "skipnet-recurrent", "exits", "experts", "two-experts"]


def made(name: str, options: dict[str, Any]) -> DynamicNetwork:
    """An untrained network whose BatchNorm and decisions depend on the image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(name, classes=10, **options)
    assert isinstance(network, DynamicNetwork)
    generator = torch.Generator().manual_seed(1)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            noise = torch.randn(32, len(network.layout), generator=generator)
            network.taught(torch.rand(32, 3, 16, 16, generator=generator), Stochastic(noise))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES, ids=IDS)
def network(request: pytest.FixtureRequest) -> DynamicNetwork:
    return made(*request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def noise(network: DynamicNetwork, draws: int, images: int) -> Tensor:
    return 3 * torch.randn(draws, images, len(network.layout), generator=torch.Generator().manual_seed(3))


def test_draws_together_are_draws_apart(network: DynamicNetwork, images: Tensor) -> None:
    drawn = noise(network, 4, len(images))
    logits, trace = sampled(network, images, drawn)
    for number, draw in enumerate(drawn):
        alone, single = network.traced(images, Stochastic(draw, "none"))
        assert torch.equal(trace.open[number], single.open)
        torch.testing.assert_close(logits[number], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(trace.margin[number], single.margin, rtol=1e-4, atol=1e-5)
    assert len(trace.open.unique(dim=0)) > 1


def test_forcing_its_own_route_changes_nothing_and_another_is_obeyed(network: DynamicNetwork, images: Tensor) -> None:
    logits, trace = network.traced(images, Deterministic())
    again, forced = network.traced(images, Forced(trace.open))
    assert torch.equal(forced.open, trace.open)
    torch.testing.assert_close(again, logits)
    other = network.layout.middle()
    assert torch.equal(network.traced(images, Forced(other[None]))[1].open, other.expand(len(images), -1))


def test_folding_changes_nothing(network: DynamicNetwork, images: Tensor) -> None:
    folded = network.fused()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(
        folded.traced(images, Deterministic(0.7))[0], network.traced(images, Deterministic(0.7))[0]
    )


def test_costs_are_what_a_forced_pass_takes(network: DynamicNetwork, images: Tensor) -> None:
    """The counter sees products of matrices and convolutions alone, so an LSTM's and a router's part is left out."""
    layout, shape = network.layout, tuple(images.shape[1:])
    costs = costs_of(network, shape)
    routes = [layout.most(costs.units, 1), layout.most(costs.units, -1), layout.middle()]
    taken = [multiply_adds(lambda x, r=r: network.traced(x, Forced(r[None]))[0], images[:1])[1] for r in routes]
    expected = [float(costs.of(route.double())) for route in routes]
    assert np.diff(taken) == pytest.approx(np.diff(expected), abs=0.002 * max(expected))
    assert taken == pytest.approx(expected, rel=0.03)


def test_gradients_of_margins_reach_the_images(network: DynamicNetwork, images: Tensor) -> None:
    inputs = images.clone().requires_grad_()
    margins = network.traced(inputs, Deterministic())[1].margin
    (gradient,) = torch.autograd.grad(margins.sum(), inputs)
    assert gradient.flatten(1).abs().amax(1).min() > 0


def test_enumeration_holds_all_probability_and_expectation_is_the_mean_over_exits(images: Tensor) -> None:
    network = made("exit20", {})
    found = enumerate_routes(network, images)
    torch.testing.assert_close(found.mass, torch.ones(len(images)))
    assert len(found.logits) == network.layout.count == 3
    mean = (found.log_prob.exp()[..., None] * found.logits).sum(0)
    torch.testing.assert_close(network.traced(images, Expected())[0], mean)


def test_experts_are_drawn_with_their_softmax_and_too_many_routes_are_refused(images: Tensor) -> None:
    network = made("moe20", {})
    assert network.layout.count > LIMIT
    with pytest.raises(UsageError, match="exact enumeration goes up to"):
        enumerate_routes(network, images)
    many = images[:1].expand(1500, -1, -1, -1)
    uniform = torch.rand(1500, len(network.layout), generator=torch.Generator().manual_seed(4))
    trace = network.traced(many, Stochastic(uniform.logit(), "none"))[1]
    first = network.layout.spans[0]
    share, chance = trace.open[:, first].mean(0), trace.prob[0, first]
    assert float((share - chance).abs().max()) < 4 * (0.25 / 1500) ** 0.5


def test_images_that_left_cost_nothing_behind_the_exit(images: Tensor) -> None:
    network = made("exit20", {})
    network.traced(images, Deterministic())  # counts its costs, once
    seen: list[int] = []
    hook = network.trunk.layer3[0].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))  # type: ignore[union-attr, index]
    route = torch.tensor([[0.0, 0], [1, 0], [1, 1], [1, 1], [0, 0], [1, 0]])
    network.traced(images, Forced(route))
    hook.remove()
    assert seen == [2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """One network of each family after a few epochs of digits."""
    torch.set_num_threads(1)
    found = {}
    for name, epochs in (("skipnet20", 4), ("exit20", 4), ("moe20", 14)):
        card = Card(name, list("0123456789"), (1, 8, 8), {"norm": [[0.3], [0.4]]}, "digits", seed=0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = card.build()
        data = load_dataset("digits", split="train"), load_dataset("digits", split="validation", limit=60)
        folder = tmp_path_factory.mktemp(name)
        train(network, card, *data, recipe("digits", epochs=epochs), folder, device=torch.device("cpu"))
        found[name] = Classifier.of(name, network.eval(), name, classes=10)
    return found


def grid(model: Classifier, *names: str, **changes: Any) -> Settings:
    settings: dict[str, Any] = {
        "models": [model],
        "dataset": load_dataset("digits", limit=32),
        "attacks": [attacks.make(name) for name in names],
        "epsilons": parse_epsilons(["0.1"]),
        "gatings": (Gating("deterministic"),),
        "attackers": ("adaptive",),
        "draws": 4,
    }
    return Settings(**settings | changes)


def rows_of(out: Path) -> pd.DataFrame:
    table = pd.read_csv(out / "summary.csv")
    return table[~table["attacker"].str.contains("/")].set_index("attack")


@pytest.mark.slow
def test_each_family_learns_digits(trained: dict[str, Classifier]) -> None:
    data = load_dataset("digits", split="test")
    for name, model in trained.items():
        accuracy, rates = evaluate(model.network, data, device=torch.device("cpu"))
        assert accuracy > 0.9, name
        assert len(rates) == len(model.units)


@pytest.mark.slow
def test_a_slowdown_attack_keeps_images_in_the_network(trained: dict[str, Classifier], tmp_path: Path) -> None:
    model = trained["exit20"]
    sweep(grid(model, "pgd:steps=6", "gates:open:steps=6,restarts=3", "gates:stealth:steps=6,restarts=2"), tmp_path)
    rows = rows_of(tmp_path)
    opened, pgd = rows.loc["gates:open:steps=6,restarts=3"], rows.loc["pgd:steps=6"]
    ceiling = costs_of(model.network, (1, 8, 8)).extreme(model.network.layout, 1)  # type: ignore[arg-type, union-attr]
    won = (opened["macs_adv"] - opened["macs_clean"]) / (ceiling - opened["macs_clean"])
    assert won > 0.9
    assert opened["macs_adv"] > pgd["macs_adv"]
    held = rows.loc["gates:stealth:steps=6,restarts=2"]
    assert held["flip_rate"] == 0
    assert held["macs_adv"] == held["macs_clean"]
    assert held["accuracy"] < rows.loc["none"]["accuracy"]
    measures = set(pd.read_csv(tmp_path / "gates.csv")["measure"])
    assert {"hamming", "macs_ratio", "recovered_up", "mediation_gates"} <= measures


@pytest.mark.slow
def test_experts_are_rerouted_and_their_compute_cannot_be_attacked(
    trained: dict[str, Classifier], tmp_path: Path
) -> None:
    model = trained["moe20"]
    sweep(grid(model, "gates:route:steps=5,restarts=2", "gates:stealth:steps=5,restarts=2"), tmp_path)
    rows = rows_of(tmp_path)
    assert rows.loc["gates:route:steps=5,restarts=2"]["flip_rate"] > 0.1
    assert rows.loc["gates:stealth:steps=5,restarts=2"]["flip_rate"] == 0
    with pytest.raises(UsageError, match="costs the same"):
        preflight(grid(model, "gates:open"))
    with pytest.raises(UsageError, match="flips single gates"):
        preflight(grid(model, "gates:joint:estimator=local-expectation"))
    with pytest.raises(UsageError, match="exact enumeration"):
        preflight(grid(model, "gates:joint:estimator=exact", gatings=(Gating("stochastic"),)))


@pytest.mark.slow
@pytest.mark.parametrize("gating", ["deterministic", "stochastic"])
@pytest.mark.parametrize("name", ["skipnet20", "exit20", "moe20"])
def test_every_attack_on_decisions_runs_or_says_why_not(
    name: str, gating: str, trained: dict[str, Classifier], tmp_path: Path
) -> None:
    model = trained[name]
    assert is_dynamic(model.network)
    family = [entry for entry in attacks.registry.entries() if entry.name.startswith("gates:")]
    done, constant = 0, [entry.name for entry in family if _about_compute(entry.load())]
    for entry in family:
        cheap = ":steps=1,restarts=1" if entry.name not in ("gates:dc-shift",) else ""
        settings = grid(
            model,
            entry.name + cheap,
            dataset=load_dataset("digits", limit=4),
            reference=load_dataset("digits", split="validation", limit=12),
            gatings=(Gating(gating),),
            draws=2,
        )
        if name == "moe20" and entry.name in constant:
            with pytest.raises(UsageError, match="costs the same"):
                preflight(settings)
            continue
        preflight(settings)
        result = sweep(settings, tmp_path / entry.name.replace(":", "-"))
        assert not result.failed
        done += 1
    assert done == len(family) - (len(constant) if name == "moe20" else 0)


def _about_compute(attack: type) -> bool:
    """Whether an attack, as it is by default, wants more or less compute."""
    made = attack()
    return getattr(made, "sign", 0) != 0 or getattr(made, "aim", "") in ("open", "close")
