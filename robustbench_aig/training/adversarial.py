"""Adversarial training: the perturbations that it trains on, and the check that they still teach something.

Everything here knows a network only as ``forward(images, noise) -> logits``: images (N, C, H, W) in [0, 1], logits
(N, classes), and noise whatever the network's randomness takes, or None. Sizes are in units of the pixel range [0, 1]
unless they are said to be shares of ``eps``, the radius of the L-infinity ball. All random starts come from a CPU
generator, so that they are the same on every device.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Forward = Callable[[Tensor, Tensor | None], Tensor]

TRADES_START = 0.001
"""Standard deviation of the Gaussian start of TRADES; at the clean image itself the gradient of the KL is 0."""
GAP, SHARE = 0.15, 0.5
"""Catastrophic overfitting is accuracy under FGSM more than GAP above that under PGD, or accuracy under PGD below SHARE
of its best so far, once that was twice what guessing gives."""


def n_fgsm(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    noise: Tensor | None,
    generator: torch.Generator,
    *,
    eps: float,
    step: float = 1.0,
    start: float = 2.0,
) -> Tensor:
    """One FGSM step from strong uniform noise, without projection (N-FGSM: de Jorge et al. 2022, arXiv 2202.01181,
    Algorithm 1).

    The result may lie up to ``(start + step) eps`` from the images: the paper finds that projection to the ball brings
    catastrophic overfitting back.

    Args:
        forward: the network.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        noise: (1, N, …) for the one pass, or None.
        generator: draws the start.
        eps: radius of the ball.
        step: alpha of the paper, as a share of ``eps``.
        start: k of the paper, half the width of the uniform noise, as a share of ``eps``.

    Returns:
        (N, C, H, W) float32 in [0, 1], without gradient.
    """
    points = (images + _uniform(images, start * eps, generator)).clamp(0, 1)
    gradient = _ascent(lambda x: _cross_entropy(forward(x, _of_step(noise, 0)), labels), points)
    return (points + step * eps * gradient.sign()).clamp(0, 1)


def pgd(
    forward: Forward,
    images: Tensor,
    labels: Tensor,
    noise: Tensor | None,
    generator: torch.Generator,
    *,
    eps: float,
    steps: int = 10,
    step: float = 0.25,
    start: float = 1.0,
) -> Tensor:
    """Projected steps along the sign of the gradient of the cross-entropy (Madry et al. 2018, arXiv 1706.06083,
    section 2.1).

    Args:
        forward: the network.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        noise: (steps, N, …), a draw for each step, so that the steps climb the mean over draws; or None.
        generator: draws the start.
        eps: radius of the ball.
        steps: how many steps; 0 returns the start.
        step: their size as a share of ``eps``.
        start: half the width of the uniform start as a share of ``eps``; 0 starts at the images.

    Returns:
        (N, C, H, W) float32 in [0, 1] within ``eps`` of the images, without gradient.
    """
    points = _project(images + _uniform(images, start * eps, generator), images, eps)
    for number in range(steps):
        draw = _of_step(noise, number)
        gradient = _ascent(lambda x, draw=draw: _cross_entropy(forward(x, draw), labels), points)  # type: ignore[misc]
        points = _project(points + step * eps * gradient.sign(), images, eps)
    return points


def trades(
    forward: Forward,
    images: Tensor,
    noise: Tensor | None,
    generator: torch.Generator,
    *,
    eps: float,
    steps: int = 10,
    step: float = 0.25,
) -> Tensor:
    """Projected steps along the sign of the gradient of KL(clean || perturbed) (TRADES: Zhang et al. 2019,
    arXiv 1901.08573, Eq. 5 and Algorithm 1).

    Args:
        forward: the network.
        images: (N, C, H, W) float32 in [0, 1].
        noise: (1, N, …), one draw for all passes, so that both distributions are of the same random network; or None.
        generator: draws the start.
        eps: radius of the ball.
        steps: how many steps.
        step: their size as a share of ``eps``.

    Returns:
        (N, C, H, W) float32 in [0, 1] within ``eps`` of the images, without gradient.
    """
    draw = _of_step(noise, 0)
    with torch.no_grad():
        clean = forward(images, draw)
    start = torch.empty_like(images, device="cpu").normal_(0, TRADES_START, generator=generator)
    points = _project(images + start.to(images.device), images, eps)
    for _ in range(steps):
        gradient = _ascent(lambda x: divergence(clean, forward(x, draw)).sum(), points)
        points = _project(points + step * eps * gradient.sign(), images, eps)
    return points


def divergence(clean: Tensor, perturbed: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(perturbed)) of each image in nats, (N,) float32, for logits (N, classes)."""
    target, guess = functional.log_softmax(clean.float(), 1), functional.log_softmax(perturbed.float(), 1)
    return functional.kl_div(guess, target, reduction="none", log_target=True).sum(1)


@contextmanager
def inner_pass(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Passes that only look for perturbations: nothing about ``model``, which is in training mode, changes by them.

    Weights ask for no gradient, and BatchNorm keeps its running statistics.

    Args:
        model: in training mode before and after.
        training: normalise by the statistics of the batch, as the step that follows will; otherwise eval mode.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for weight in weights:
        weight.requires_grad_(False)
    if training:
        for norm in norms:
            norm.track_running_stats = False  # in training mode: read no running statistics, and write none
    else:
        model.eval()
    try:
        yield
    finally:
        model.train()
        for norm in norms:
            norm.track_running_stats = True
        for weight in weights:
            weight.requires_grad_(True)


def overfits(fgsm: float, under_pgd: float, before: Sequence[float], chance: float) -> bool:
    """Whether an epoch overfitted catastrophically to its own attack (Wong et al. 2020, arXiv 2001.03994, section 5.1).

    Args:
        fgsm: accuracy in [0, 1] on held-out images under FGSM.
        under_pgd: the same under PGD.
        before: accuracy under PGD after each earlier epoch.
        chance: accuracy of guessing; a network that has learnt nothing cannot unlearn it.

    Returns:
        Whether FGSM leaves more than ``GAP`` above PGD, or PGD less than ``SHARE`` of the best before.
    """
    best = max(before, default=0.0)
    return fgsm - under_pgd > GAP or (best > 2 * chance and under_pgd < SHARE * best)


def _uniform(images: Tensor, width: float, generator: torch.Generator) -> Tensor:
    return torch.empty_like(images, device="cpu").uniform_(-width, width, generator=generator).to(images.device)


def _of_step(noise: Tensor | None, number: int) -> Tensor | None:
    return None if noise is None else noise[number]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


def _ascent(objective: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The gradient of a scalar objective at the points, and at nothing else."""
    points = points.detach().requires_grad_()
    return torch.autograd.grad(objective(points), points)[0]


def _project(points: Tensor, images: Tensor, eps: float) -> Tensor:
    return torch.minimum(torch.maximum(points, images - eps), images + eps).clamp(0, 1)
