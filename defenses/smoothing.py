"""Gaussian smoothing: the noise, and the certificate that votes under it give."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri
from torch import Tensor

from robustbench_aig.contracts.defense import Defense
from robustbench_aig.registry import register


@register("smoothing", "Gaussian noise, certified radii", paper="Cohen et al. 2019", deterministic=False)
@dataclass(frozen=True)
class Smoothing(Defense):
    """Add independent Gaussian noise to every value, without clipping (Cohen et al., 2019); differentiable.

    Args:
        sigma: standard deviation in units of the pixel range [0, 1].

    Raises:
        ValueError: ``sigma`` is not a positive finite number.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"the noise's standard deviation sigma must be positive and finite, not {self.sigma}")

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Noisy images, which may leave [0, 1].

        Args:
            images: (N, C, H, W) in [0, 1].
            uniform: (N, C * H * W) in (0, 1), made normal by the inverse of the normal distribution function.
        """
        noise: Tensor = torch.special.ndtri(self._expect(images, uniform)) * self.sigma
        return images + noise.reshape(images.shape).to(images)

    def uniforms(self, image_shape: tuple[int, int, int]) -> int:
        """One for each value: C * H * W."""
        channels, height, width = image_shape
        return channels * height * width

    def radii(self, counts: ArrayLike, draws: int) -> NDArray[np.float64]:
        """Radii within which each image keeps its own label; that label was chosen before any draw, so all count."""
        return certify(counts, draws, self.sigma)


def certify(counts: ArrayLike, draws: int, sigma: float, alpha: float = 0.001) -> NDArray[np.float64]:
    """Certified L2 radii of the smoothed classifier (Cohen et al., 2019, Algorithm 2 and Theorem 1).

    Args:
        counts: how many of ``draws`` noisy copies of each image got the candidate class. The candidate must have been
            chosen on other draws, or the certificate does not hold.
        draws: noisy copies per image.
        sigma: standard deviation of the noise, pixel range [0, 1].
        alpha: probability that one certificate is wrong.

    Returns:
        Radii in the pixel range [0, 1], same shape as ``counts``: ``sigma * ppf(p)`` with ``p`` the one-sided
        Clopper-Pearson lower bound of the class's probability; 0 where ``p <= 1/2`` and nothing is certified.

    Raises:
        ValueError: a count outside 0 to ``draws``, or ``alpha`` outside (0, 1).
    """
    hits = np.asarray(counts, dtype=np.float64)
    if draws < 1 or np.any((hits < 0) | (hits > draws)):
        raise ValueError(f"counts must lie between 0 and the number of draws, {draws}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    bound = np.where(hits > 0, betaincinv(np.maximum(hits, 1), draws - hits + 1, alpha), 0.0)
    radii: NDArray[np.float64] = sigma * ndtri(np.maximum(bound, 0.5))
    return radii
