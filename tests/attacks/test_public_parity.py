"""The suite's attacks beside those of torchattacks and foolbox, on the public ResNet-20 and CIFAR-10.

Epsilons are far below 8/255, so that a good share of the images survives and a weaker attack would show.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.pgd import PGD
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.data import load_dataset
from robustbench_aig.models.resolve import load_model
from robustbench_aig.statistics.comparisons import compare

with warnings.catch_warnings():  # foolbox imports a deprecated name of scipy
    warnings.simplefilter("ignore")
    import foolbox
    import torchattacks

pytestmark = [pytest.mark.data, pytest.mark.slow]


@dataclass
class Public:
    """The network with test images."""

    network: nn.Module
    images: Tensor
    labels: Tensor

    def attack(self, attack: Any, epsilon: float) -> Tensor:
        rows = torch.arange(len(self.images))
        target = Target(self.network, Gating("none"), rows, rows, Passes.none(len(rows)), seed=0)
        (found,) = attack(target, self.images, self.labels, [epsilon])
        assert (found - self.images).abs().max() <= epsilon + 1e-6
        return found  # type: ignore[no-any-return]

    def library(self, attack: Any) -> Tensor:
        with torch.random.fork_rng():
            found: Tensor = attack(self.images, self.labels)
        return found

    def right(self, images: Tensor) -> Tensor:
        """(N,) bool."""
        with torch.no_grad():
            return self.network(images).argmax(1) == self.labels

    def first(self, count: int) -> "Public":
        return Public(self.network, self.images[:count], self.labels[:count])


@pytest.fixture(scope="module")
def public(public_resnet20: Path, cifar10_dir: Path) -> Iterator[Public]:
    torch.set_num_threads(1)
    network = load_model(f"resnet20@{public_resnet20}").network
    data = load_dataset("cifar10", data_dir=cifar10_dir, limit=64)
    images = data.images(torch.arange(len(data))).to(memory_format=torch.channels_last)
    with frozen(network):
        yield Public(network, images, data.labels)


@pytest.mark.parametrize("epsilon", [0.5 / 255, 2 / 255])
def test_pgd_from_the_same_start_equals_both_libraries(public: Public, epsilon: float) -> None:
    public = public.first(32)
    options = {"eps": epsilon, "alpha": epsilon / 4, "steps": 10, "random_start": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = (public.images + torch.empty_like(public.images).uniform_(-epsilon, epsilon)).clamp(0, 1)
        torch.manual_seed(0)
        theirs = torchattacks.PGD(public.network, **options)(public.images, public.labels)

    class FromStart(PGD):
        def _start(self, *_: object) -> Tensor:
            return start

    class FoolboxFromStart(foolbox.attacks.LinfPGD):  # type: ignore[misc]
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return type(x0)(start)

    ours = public.attack(FromStart(steps=10, rel_step=0.25, loss="ce", stop=False), epsilon)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    model = foolbox.PyTorchModel(public.network, (0, 1))
    step = {"abs_stepsize": epsilon / 4, "steps": 10}
    _, clipped, _ = FoolboxFromStart(**step)(model, public.images, public.labels, epsilons=epsilon)
    torch.testing.assert_close(ours, clipped, rtol=0, atol=1e-6)
    assert (ours - public.images).abs().max() > 0.9 * epsilon


def test_apgd_at_100_steps_breaks_at_least_as_many_as_torchattacks(public: Public) -> None:
    public, epsilon = public.first(32), 0.5 / 255
    ours = public.right(public.attack(attacks.make("apgd:steps=100"), epsilon))
    theirs = public.right(public.library(torchattacks.APGD(public.network, eps=epsilon, steps=100)))
    assert 0.2 < ours.float().mean() < 0.8
    assert ours.sum() <= theirs.sum()


def test_square_is_within_noise_of_torchattacks(public: Public) -> None:
    epsilon = 4 / 255
    ours = public.right(public.attack(attacks.make("square:queries=100"), epsilon))
    theirs = public.right(public.library(torchattacks.Square(public.network, eps=epsilon, n_queries=100)))
    assert 0.1 < ours.float().mean() < 0.9
    assert compare(ours.numpy(), theirs.numpy(), seed=0).p_value > 0.05


def test_auto_is_no_worse_than_its_best_member_on_any_image(public: Public) -> None:
    public, epsilon = public.first(32), 0.5 / 255
    auto = public.right(public.attack(attacks.make("auto:steps=20,classes=3,queries=50"), epsilon))
    members = ("apgd:steps=20", "apgd-t:steps=20,classes=3", "fmn:steps=20", "square:queries=50")
    alone = torch.stack([public.right(public.attack(attacks.make(name), epsilon)) for name in members])
    assert auto.any()
    assert not (auto & ~alone.all(0)).any()
    assert len(set(alone.sum(1).tolist())) > 1
