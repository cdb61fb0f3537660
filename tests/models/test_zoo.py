"""The weights that come with the suite: small, complete, and as good as their cards say."""

import json
from pathlib import Path

import pytest
import torch

from robustbench_aig.data import load_dataset
from robustbench_aig.models.checkpoints import load
from robustbench_aig.models.resolve import ZOO, load_model, zoo_names
from robustbench_aig.training.loop import evaluate

CPU = torch.device("cpu")


def test_the_zoo_has_a_plain_and_a_gated_network_with_the_same_shortcuts() -> None:
    assert {"resnet20-cifar10", "aig20-cifar10"} <= set(zoo_names())
    cards = [json.loads((ZOO / name / "card.json").read_text()) for name in ("resnet20-cifar10", "aig20-cifar10")]
    assert cards[0]["options"] == cards[1]["options"]


@pytest.mark.parametrize("name", zoo_names())
def test_card_is_complete_and_weights_are_small(name: str) -> None:
    model = load_model(name)
    card = model.card
    assert card is not None
    assert card.dataset
    assert card.recipe["epochs"] == card.epochs
    assert card.provenance["versions"]["torch"]
    assert {"test", "validation"} <= card.accuracy.keys()
    assert (ZOO / name / "weights.safetensors").stat().st_size <= 2_000_000
    assert bool(model.units) == ("stochastic" in card.execution_rate)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20-cifar10", "aig20-cifar10"])
def test_measured_accuracy_is_the_cards(name: str, cifar10_dir: Path) -> None:
    model, card = load(ZOO / name)
    data = load_dataset("cifar10", data_dir=cifar10_dir)
    assert evaluate(model, data, device=CPU)[0] == pytest.approx(card.accuracy["test"], abs=2e-4)
    if "test_stochastic" in card.accuracy:
        sampled, rates = evaluate(model, data, device=CPU, stochastic_seed=card.seed)
        assert sampled == pytest.approx(card.accuracy["test_stochastic"], abs=5e-4)
        assert 0.6 <= sum(rates) / len(rates) <= 0.85
