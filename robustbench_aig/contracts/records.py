"""Records: arrays about the same images, which are joined, cut and chosen from together.

The axes of every array come in one order: S draws, E epsilons, N images, L units. An array has those that it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


PER_UNIT: Mapping[str, int] = {"images": -2}
"""Metadata of a field whose last axis are units: (…, N, L). The last axis of any other are the images: (…, N)."""


@dataclass(frozen=True)
class Record:
    """A frozen dataclass whose fields are arrays with an axis of images, other such records, or None."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One record of consecutive batches."""
        return cls._combine(parts, lambda arrays, axis: np.concatenate(arrays, axis))

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """One record of the same images at E epsilons, from a record for each."""
        return cls._combine(parts, lambda arrays, axis: np.stack(arrays, axis - 1))

    def take(self, rows: slice) -> Self:
        """The record of some of the images."""
        return self._combine([self], lambda arrays, axis: arrays[0][_index(rows, axis)])

    def at(self, epsilon: int) -> Self:
        """The record of one of the epsilons, without their axis."""
        return self._combine([self], lambda arrays, axis: arrays[0][_index(epsilon, axis - 1)])

    def where(self, mask: Bools, other: Self) -> Self:
        """This record with what is marked in ``mask``, (N,) or (E, N), replaced by that of ``other``."""

        def choose(arrays: Sequence[Array], axis: int) -> Array:
            return np.where(mask if axis == -1 else mask[..., None], arrays[1], arrays[0])

        return self._combine([self, other], choose)

    @classmethod
    def _combine(cls, parts: Sequence[Self], change: Callable[[Sequence[Array], int], Array]) -> Self:
        """The record whose every array is ``change`` of those of the parts and the number of the images' axis."""
        found: dict[str, Any] = {}
        for own in fields(cls):
            values = [getattr(part, own.name) for part in parts]
            if isinstance(values[0], Record):
                found[own.name] = values[0]._combine(values, change)
            else:
                found[own.name] = None if values[0] is None else change(values, own.metadata.get("images", -1))
        return cls(**found)


def _index(chosen: slice | int, axis: int) -> tuple[Any, ...]:
    return (..., chosen, *[slice(None)] * (-1 - axis))
