"""What every defence offers: the real transformation, differentiable stand-ins for an attacker, and an identity."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

STRENGTHS = ("identity", "soft", "end-to-end")
"""Every kind of surrogate, weakest first; a defence offers some of them, in this order.

``identity`` and ``soft`` run the real transformation forward and replace only its gradient: by the identity (BPDA), or
by that of a soft-rounding model of it. ``end-to-end`` is a differentiable model in both directions.
"""


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """``value`` bit for bit, with the gradient of ``source`` (BPDA, Athalye et al. 2018); both of one shape."""
    result: Tensor = _StraightThrough.apply(value.detach(), source)
    return result


class Defense(ABC):
    """A transformation of images before they reach the classifier, as a pure function.

    Concrete defences are frozen dataclasses whose fields are their parameters. A random defence draws nothing itself:
    it maps the uniform numbers that it is given, so the caller decides on seeds and on common random numbers.
    """

    name: ClassVar[str]
    """In the registry, which sets it, as it sets the next two where :func:`~robustbench_aig.registry.register` has
    them."""
    deterministic: ClassVar[bool] = True
    paper: ClassVar[str] = ""
    nothing: ClassVar[bool] = False
    """Whether it leaves every image as it is: true of :data:`NO_DEFENSE` alone."""
    surrogates: ClassVar[tuple[str, ...]] = ()
    """Kinds of differentiable stand-ins, weakest first; empty when the defence itself is differentiable."""

    @abstractmethod
    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Apply the real defence; where ``surrogates`` is not empty, no gradient is promised.

        Args:
            images: (N, C, H, W), float32 in [0, 1].
            uniform: (N, ``uniforms((C, H, W))``), in (0, 1); ignored by a deterministic defence.

        Returns:
            (N, C, H', W'), float32, on the device of ``images``; see ``output_shape``.

        Raises:
            ValueError: unsupported shape, or ``uniform`` missing or of the wrong shape.
        """

    def surrogate(self, kind: str, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """A differentiable stand-in for the defence; arguments and result as in ``__call__``.

        A differentiable defence is its own stand-in, whatever the ``kind``.

        Raises:
            ValueError: ``kind`` is none of ``surrogates``.
        """
        if not self.surrogates:
            return self(images, uniform)
        if kind not in self.surrogates:
            raise ValueError(f"defense '{self.label}' has no surrogate '{kind}'; it has: {', '.join(self.surrogates)}")
        if kind == "identity":
            with torch.no_grad():
                real = self(images, uniform)
            return straight_through(real, images)
        return self._surrogate(kind, images, uniform)

    def _surrogate(self, kind: str, images: Tensor, uniform: Tensor | None) -> Tensor:
        """The stand-ins other than ``identity``, for a ``kind`` that the class lists: by default the defence itself."""
        return self(images, uniform)

    def uniforms(self, image_shape: tuple[int, int, int]) -> int:
        """How many uniform numbers in (0, 1) each image of shape (C, H, W) needs; 0 for a deterministic defence."""
        return 0

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape (C, H', W') that images of shape (C, H, W) leave with; the same except for ``resize-pad``."""
        return image_shape

    def radii(self, counts: ArrayLike, draws: int) -> NDArray[np.float64] | None:
        """Certified L2 radii of images right in ``counts`` of ``draws`` clean draws; None: it certifies nothing."""
        return None

    def settings(self) -> dict[str, Any]:
        """The name and every parameter, defaults filled in: what identifies the defence in a result."""
        return {"name": self.name, **self._parameters()}

    def record(self) -> dict[str, Any]:
        """Provenance that is written down but identifies nothing, such as codec versions; JSON types only."""
        return {}

    @property
    def label(self) -> str:
        """The shortest specification that ``defenses.make`` turns into this defence: ``jpeg:75``."""
        parameters = self._parameters()
        parts = [
            f"{key}={value}" if position else str(value)
            for position, (key, value) in enumerate(parameters.items())
            if position == 0 or value != type(self).__dataclass_fields__[key].default  # type: ignore[attr-defined]
        ]
        return f"{self.name}:{','.join(parts)}" if parts else self.name

    def _parameters(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def _expect(self, images: Tensor, uniform: Tensor | None) -> Tensor:
        """``uniform``, once it is known to hold a row of the right length for every image."""
        channels, height, width = images.shape[1:]
        shape = (len(images), self.uniforms((channels, height, width)))
        if uniform is None or tuple(uniform.shape) != shape:
            given = "none" if uniform is None else f"shape {tuple(uniform.shape)}"
            raise ValueError(f"defense '{self.label}' needs uniform numbers of shape {shape}, but got {given}")
        return uniform


@dataclasses.dataclass(frozen=True)
class NoDefense(Defense):
    """The images as they are."""

    name: ClassVar[str] = "none"
    nothing: ClassVar[bool] = True

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """``images`` itself."""
        return images


NO_DEFENSE = NoDefense()
"""No defence, wherever one is asked for."""
