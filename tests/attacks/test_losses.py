"""Losses, their averages over draws, and saturation."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import attacks
from attacks.apgd import checkpoints
from attacks.common import losses
from robustbench_aig.contracts.forward import View
from robustbench_aig.errors import UsageError
from tests.fixtures.broken_models import LargeLogits

LABELS = torch.tensor([0, 2])
LOGITS = torch.tensor([[3.0, 1.0, 0.0, -1.0], [5.0, 0.0, 1.0, 2.0]])


def test_margin_and_dlr_by_hand():
    torch.testing.assert_close(losses.margin(LOGITS, LABELS), torch.tensor([-2.0, 4.0]))
    torch.testing.assert_close(losses.dlr(LOGITS, LABELS), torch.tensor([-2 / 3, 4 / 4]))
    aims = torch.tensor([1, 1])
    torch.testing.assert_close(losses.margin(LOGITS, LABELS, aims), torch.tensor([-2.0, -5.0]))
    torch.testing.assert_close(losses.dlr(LOGITS, LABELS, aims), torch.tensor([-2 / 3.5, -1 / 4.5]))


def test_dlr_says_how_many_classes_it_needs():
    with pytest.raises(UsageError, match="3 classes"):
        losses.dlr(LOGITS[:, :2], torch.zeros(2, dtype=torch.int64))


def test_averages_over_draws():
    draws = torch.stack([LOGITS, LOGITS.flip(1)])
    view, criterion = View(draws, None), losses.Criterion(LABELS)
    per_draw = torch.stack([functional.cross_entropy(z, LABELS, reduction="none") for z in draws])
    torch.testing.assert_close(criterion.objective("ce", "loss")(view), per_draw.mean(0))
    expected = functional.cross_entropy(draws.mean(0), LABELS, reduction="none")
    torch.testing.assert_close(criterion.objective("ce", "logits")(view), expected)
    probability = draws.softmax(-1).mean(0)[torch.arange(2), LABELS]
    torch.testing.assert_close(criterion.objective("ce", "probs")(view), -probability.log())


def test_auto_grows_with_the_margin_through_saturation():
    gaps = torch.linspace(40, -5, 200)
    logits = torch.stack([gaps, torch.zeros(200)], 1)
    values = losses.auto(logits, torch.zeros(200, dtype=torch.int64))
    assert (values.diff() > 0).all()


def test_a_saturated_network_is_attacked_all_the_same(plain):
    """Logits x 300: cross-entropy is blind to most images, and iterated attacks must not be."""

    class Loud(torch.nn.Module):
        def forward(self, images):
            return 300 * plain.network(images)

    target = plain.target()
    object.__setattr__(target, "model", Loud())
    blind = attacks.make("pgd:steps=10,loss=ce")(target, plain.images, plain.labels, [32 / 255])
    seeing = attacks.make("pgd:steps=10")(target, plain.images, plain.labels, [32 / 255])
    assert plain.broken(seeing).sum() > plain.broken(blind).sum()


def test_apgd_reviews_its_step_as_published():
    assert list(checkpoints(100).items())[:6] == [(22, 22), (41, 19), (57, 16), (70, 13), (80, 10), (87, 7)]


@pytest.mark.parametrize(
    "name", ["fgsm:loss=auto", "fgsm:loss=margin", "bim", "mifgsm", "pgd", "apgd", "apgd-t", "fmn", "deepfool", "auto"]
)
def test_saturated_cross_entropy_hides_nothing(plain, name):
    """Of a network with logits x 100, attacks break what they break of the network itself."""
    budget = 24 / 255
    scaled = replace(plain, network=LargeLogits(plain.network))
    short = {"apgd": "steps=12", "apgd-t": "steps=12,classes=3", "fmn": "steps=20", "pgd": "steps=10"}
    short |= {"auto": "steps=12,classes=3,queries=20", "deepfool": "steps=5,candidates=3"}
    attack = attacks.make(f"{name}:{short[name]}" if name in short else name)
    (own,) = attack(plain.target(), plain.images, plain.labels, [budget])
    (found,) = attack(scaled.target(), plain.images, plain.labels, [budget])
    (blunt,) = attacks.make("fgsm:loss=ce")(scaled.target(), plain.images, plain.labels, [budget])
    assert plain.broken(found).sum() + 1 >= plain.broken(own).sum() > 0
    assert plain.broken(found).sum() > plain.broken(blunt).sum()
