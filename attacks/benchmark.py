"""``bench``: what a sweep costs beside the fewest passes that its answer needs, and beside the libraries.

Every contender answers the same question on the same model and images in the same process: which images are fooled at
each
epsilon. Repeats are interleaved and medians compared, so that only ratios are claimed; answers are compared each time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks.fgsm import FGSM
from attacks.libraries import foolbox, torchattacks
from robustbench_aig.evaluation.gating import Gating
from robustbench_aig.evaluation.scoring import score
from robustbench_aig.evaluation.target import Passes, Target, frozen

Answer = Tensor
"""(E, N) bool on the CPU: image n is fooled at epsilon e."""


@dataclass(frozen=True)
class Timing:
    """One contender.

    Attributes:
        name: who.
        seconds: median wall time of one answer.
        ratio: seconds over the floor's.
        same: share of (epsilon, image) verdicts that agree with ours.
    """

    name: str
    seconds: float
    ratio: float
    same: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilons: Sequence[float], repeats: int = 5) -> list[Timing]:
    """FGSM over all epsilons; the floor is one forward+backward pass and one forward pass per epsilon.

    Args:
        model: in eval mode, on the images' device.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        epsilons: ascending, above 0.
        repeats: interleaved timings of each contender.
    """
    ids = torch.arange(len(images), device=images.device)
    gating = Gating("none")

    def floor() -> Answer:
        inputs = images.clone().requires_grad_()
        nn.functional.cross_entropy(model(inputs), labels, reduction="sum").backward()
        with torch.no_grad():
            return torch.stack([model(images).argmax(1) != labels for _ in epsilons]).cpu()

    def ours() -> Answer:
        target = Target(model, gating, 0, ids, ids, Passes.none(len(images), images.device), 0)
        crafted = FGSM()(target, images, labels, epsilons)
        scores = [score(model, gating, 0, None, batch, labels, ids, seed=0, draws=1) for batch in crafted]
        return torch.stack([torch.from_numpy(~part.correct[0]) for part in scores])

    def by_torchattacks() -> Answer:
        library = torchattacks.load()
        fooled = []
        for epsilon in epsilons:
            adversarial = library.FGSM(model, eps=epsilon)(images, labels)
            with torch.no_grad():
                fooled.append(model(adversarial).argmax(1) != labels)
        return torch.stack(fooled).cpu()

    def by_foolbox() -> Answer:
        library = foolbox.load()
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=images.device)
        _, _, success = library.attacks.LinfFastGradientAttack()(wrapped, images, labels, epsilons=list(epsilons))
        fooled: Tensor = success
        return fooled.cpu()

    contenders = {"floor": floor, "robustbench-aig": ours, "torchattacks": by_torchattacks, "foolbox": by_foolbox}
    with frozen(model):
        return compare(contenders, repeats)


def compare(contenders: dict[str, Callable[[], Answer]], repeats: int) -> list[Timing]:
    """Time contenders in turn, ``repeats`` times after one warm-up; ratios are to ``floor``, answers to
    ``robustbench-aig``."""
    answers = {name: answer() for name, answer in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, answer in contenders.items():
            started = time.perf_counter()
            answers[name] = answer()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = answers["robustbench-aig"]
    return [
        Timing(name, medians[name], medians[name] / medians["floor"], (answers[name] == ours).float().mean().item())
        for name in contenders
    ]
