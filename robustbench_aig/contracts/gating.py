"""How a model decides during an evaluation: a name that turns into policies."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustbench_aig.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_aig.contracts.policy import Gradient, Policy

KINDS = ("none", "deterministic", "stochastic", "expected")


@dataclass(frozen=True)
class Gating:
    """``none`` (a model without gates), ``deterministic`` (Eq. 12), ``stochastic`` (Eq. 8) or ``expected`` (AIG*)."""

    kind: Literal["none", "deterministic", "stochastic", "expected"]
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Gating":
        """Read ``stochastic``, ``expected``, ``deterministic`` or ``deterministic:0.3``.

        Raises:
            UsageError: unknown gating or a threshold outside [0, 1].
        """
        kind, _, value = text.partition(":")
        if kind not in KINDS:
            raise unknown("gating", kind, KINDS)
        if not value:
            return cls(kind)  # type: ignore[arg-type]
        try:
            threshold = float(value)
        except ValueError:
            threshold = -1.0
        if kind != "deterministic" or not 0 <= threshold <= 1:
            raise UsageError(f"gating '{text}' is not understood; only deterministic takes a threshold, from 0 to 1.")
        return cls("deterministic", threshold)

    @property
    def name(self) -> str:
        """The canonical specification."""
        return self.kind if self.threshold is None else f"{self.kind}:{self.threshold:g}"

    @property
    def stochastic(self) -> bool:
        """Whether two draws can differ."""
        return self.kind == "stochastic"

    def policy(self, noise: "Tensor | None", gradient: "Gradient" = "none") -> "Policy":
        """The policy for a batch.

        Args:
            noise: (N, L) logistic noise, for sampled decisions alone.
            gradient: how hard decisions pass gradients.
        """
        from robustbench_aig.contracts.policy import Deterministic, Expected, Stochastic

        if self.kind == "expected":
            return Expected()
        if self.kind == "deterministic":
            return Deterministic(self.threshold, gradient)
        assert noise is not None
        return Stochastic(noise, gradient)
