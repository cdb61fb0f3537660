"""No defence."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustbench_aig.contracts.defense import Defense


@dataclass(frozen=True)
class NoDefense(Defense):
    """The images as they are."""

    key: ClassVar[str] = "none"

    def __call__(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return ``images`` itself."""
        return images
