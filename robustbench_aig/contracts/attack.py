"""What every attack is: a frozen dataclass of parameters that maps images to perturbed images, one set per budget."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from torch import Tensor

from robustbench_aig.contracts.norms import Norm
from robustbench_aig.contracts.target import Target
from robustbench_aig.errors import UsageError

Access = Literal["white-box", "black-box", "none"]
"""What an attack uses of the model: gradients, outputs only, or nothing."""

Purpose = Literal["class", "gates", "compute", "nothing"]
"""What an attack wants to change: the predicted class, what gates decide, what the pass costs. Only an attack that aims
at the class says how robust a model is; ``nothing`` is a control, which leaves the images as they are."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack with all its parameters.

    Attributes:
        norm: of the perturbation; budgets are in pixel units of [0, 1].
    """

    name: ClassVar[str]
    """In the registry, which sets it, as it sets the next four where :func:`~robustbench_aig.registry.register` has
    them."""
    access: ClassVar[Access] = "white-box"
    aims_at: ClassVar[Purpose] = "class"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    """The norms that it works in."""
    budget: ClassVar[Literal["fixed", "minimal"]] = "fixed"
    """Whether it fills a budget, or looks for the smallest perturbation."""
    paper: ClassVar[str] = ""
    needs_gates: ClassVar[bool] = False
    iterated: ClassVar[bool] = True
    takes_half: ClassVar[bool] = False
    """Whether its gradients may be taken in bfloat16 and the result is as strong."""
    refills: ClassVar[bool] = False
    """Whether decided images leave and all passes are the target's, so that it may get more images than fit one pass
    and the passes stay full."""
    follows_noise: ClassVar[bool] = True
    """Whether it can attack each image under the noise of that image."""
    clean_on_failure: ClassVar[bool] = False
    """Whether an image that it cannot break within the budget comes back as it was."""

    norm: Norm = "linf"

    @property
    def needs_gradient(self) -> bool:
        """Whether it uses gradients of the model."""
        return self.access == "white-box"

    @property
    def learns(self) -> bool:
        """Whether it learns from reference images, which are not attacked."""
        return False

    def check_norm(self) -> None:
        """Refuse a norm that the attack does not work in.

        Raises:
            UsageError: it is none of its ``norms``.
        """
        if self.norm not in self.norms:
            raise UsageError(
                f"attack '{self.name}' works in {' or '.join(self.norms)}, not {self.norm}; choose that norm, and "
                "budgets in it."
            )

    def check_target(self, target: Target, images: Tensor, labels: Tensor) -> None:  # noqa: B027 - most suit any model
        """Refuse what can never work on this model, before a sweep begins; what can is not decided here.

        Args:
            target: what would be attacked.
            images: (N, C, H, W) a few of the images.
            labels: (N,).

        Raises:
            UsageError: the attack does not suit the model or its gating.
        """

    @abstractmethod
    def __call__(self, target: Target, images: Tensor, labels: Tensor, budgets: Sequence[float]) -> Tensor:
        """Perturb a batch for every budget.

        Args:
            target: what the attacker knows; it counts the passes spent.
            images: (N, C, H, W) float32 in [0, 1].
            labels: (N,) int64 true classes.
            budgets: E sizes of the norm ball, ascending, above 0.

        Returns:
            (E, N, C, H, W) images in [0, 1], each inside its ball. The clean image is always a candidate.
        """

    @property
    def label(self) -> str:
        """The specification in its shortest form: the name and the parameters that differ from their defaults."""
        changed = [
            f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name != "norm" and not _is_default(self, f)
        ]
        return f"{self.name}:{','.join(changed)}" if changed else self.name

    def settings(self) -> dict[str, Any]:
        """Name and every parameter with defaults filled in: what identifies the attack in a run."""
        return {"name": self.name, **asdict(self)}


def _is_default(attack: Attack, field: "Field[Any]") -> bool:
    return bool(getattr(attack, field.name) == field.default)
