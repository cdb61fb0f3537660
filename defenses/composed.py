"""Several defences, one after another."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustbench_aig.contracts.defense import STRENGTHS, Defense


@dataclass(frozen=True)
class Composed(Defense):
    """Apply ``members`` in order.

    Its surrogates are those of its members together. For one kind, each member takes that kind, or else the strongest
    weaker one that it has, or else its weakest. Uniform numbers are the members' own, side by side.
    """

    members: tuple[Defense, ...]

    name: ClassVar[str] = "composed"

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether every member is."""
        return all(member.deterministic for member in self.members)

    @property
    def surrogates(self) -> tuple[str, ...]:  # type: ignore[override]
        """Every kind that some member has, weakest first."""
        return tuple(kind for kind in STRENGTHS if any(kind in member.surrogates for member in self.members))

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Apply the real members in order; arguments as in ``Defense``."""
        for member, part in zip(self.members, self._split(images, uniform), strict=True):
            images = member(images, part)
        return images

    def surrogate(self, kind: str, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Chain the members' surrogates, each the closest it has to ``kind``."""
        if self.surrogates and kind not in self.surrogates:
            raise ValueError(f"defense '{self.label}' has no surrogate '{kind}'; it has: {', '.join(self.surrogates)}")
        for member, part in zip(self.members, self._split(images, uniform), strict=True):
            images = member.surrogate(_closest(kind, member.surrogates), images, part)
        return images

    def uniforms(self, image_shape: tuple[int, int, int]) -> int:
        """The members' numbers together, each counted for the shape that reaches it."""
        return sum(self._counts(image_shape))

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape after the last member."""
        for member in self.members:
            image_shape = member.output_shape(image_shape)
        return image_shape

    def settings(self) -> dict[str, Any]:
        """The members' settings, in order."""
        return {"name": self.name, "members": [member.settings() for member in self.members]}

    def record(self) -> dict[str, Any]:
        """The members' records, by their labels."""
        return {member.label: record for member in self.members if (record := member.record())}

    @property
    def label(self) -> str:
        """The members' labels joined by ``+``."""
        return "+".join(member.label for member in self.members)

    def _counts(self, image_shape: tuple[int, int, int]) -> list[int]:
        counts = []
        for member in self.members:
            counts.append(member.uniforms(image_shape))
            image_shape = member.output_shape(image_shape)
        return counts

    def _split(self, images: Tensor, uniform: Tensor | None) -> list[Tensor | None]:
        channels, height, width = images.shape[1:]
        counts = self._counts((channels, height, width))
        if not sum(counts):
            return [None] * len(counts)
        return list(torch.split(self._expect(images, uniform), counts, dim=1))


def _closest(kind: str, available: tuple[str, ...]) -> str:
    limit = STRENGTHS.index(kind) if kind in STRENGTHS else 0
    weaker = [own for own in available if STRENGTHS.index(own) <= limit]
    return weaker[-1] if weaker else next(iter(available), kind)
