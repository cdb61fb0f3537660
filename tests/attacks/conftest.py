"""A small network trained for a second on the bundled digits, shrunk to 8x8, and a gated one."""

from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.network import frozen
from robustbench_aig.contracts.target import Passes, Target
from robustbench_aig.models.aig import ConvNetAIG
from robustbench_aig.models.resnet import CifarResNet

COUNT = 24


@dataclass
class Victim:
    """A frozen network with images and labels to attack it on."""

    network: nn.Module
    images: Tensor
    labels: Tensor

    def target(self, gating: str = "none", draws: int = 1, **options: object) -> Target:
        count = len(self.images)
        return Target(
            self.network,
            Gating.parse(gating),
            torch.arange(count),
            torch.arange(count),
            Passes.none(count),
            seed=0,
            draws=draws,
            **options,  # type: ignore[arg-type]
        )

    def broken(self, images: Tensor) -> Tensor:
        """(…, N) bool: which images are misclassified under deterministic gates."""
        flat = self.network(images.flatten(0, -4))
        return (flat.argmax(1).view(images.shape[:-3]) != self.labels).detach()


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
    return images, torch.tensor(digits.target)


def _trained(network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        chosen = torch.randint(0, 1500, (128,), generator=generator)
        loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _victim(gated: bool) -> Victim:
    images, labels = _digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = CifarResNet(8)
        network: nn.Module = ConvNetAIG(trunk) if gated else trunk
    _trained(network, images, labels, seed=0)
    if isinstance(network, ConvNetAIG):  # gates near the threshold, so that attacks and draws do change them
        for gate in network.gates:
            nn.init.constant_(gate.fc2.bias, 0.0)
            nn.init.normal_(gate.fc2.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    network.eval()
    return Victim(network, images[1500 : 1500 + COUNT], labels[1500 : 1500 + COUNT])


@pytest.fixture(scope="session")
def plain():
    victim = _victim(gated=False)
    with frozen(victim.network):
        yield victim


@pytest.fixture(scope="session")
def gated():
    victim = _victim(gated=True)
    with frozen(victim.network):
        yield victim
