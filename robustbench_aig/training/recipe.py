"""Training recipes: every setting of a training run, as data."""

import dataclasses
import math
import tomllib
from importlib.resources import files
from typing import Any, Literal

from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.errors import UsageError, unknown


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of SGD on the joint loss of Eq. 11; a target rate matters to gated networks only.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        lr: peak learning rate.
        momentum: of SGD; ``nesterov`` selects its variant.
        weight_decay: on all parameters.
        schedule: ``step`` divides the rate by 10 at each of ``milestones`` (epochs); ``cosine`` anneals it to 0.
        warmup: epochs over which the rate first rises linearly from 0.
        crop_padding: zero padding before a random crop back to size; 0 for none.
        resized_crop: random resized crops (scale 0.25 to 1) in place of padded ones.
        crop_size: side of the resized crops in pixels, 0 for the images' own. Smaller ones cost less, and objects in
            them look as large as in whole test images (Touvron et al. 2019, "Fixing the train-test discrepancy").
        flip: mirror half of the images.
        label_smoothing: mass spread over all classes.
        target_rate: t_l of Eq. 10: one number for all gates, or one per gate; a target of 1 also counts.
        target_weight: lambda of Eq. 11.
        gates: ``straight-through`` or ``soft`` Gumbel-softmax in the forward pass (Eq. 9).
        temperature: tau of Eq. 9.
        bf16: bfloat16 autocast in the network's passes.
        compile: ``torch.compile`` the passes.
        adversary: what perturbs the training images: ``none``, or a function of
            :mod:`robustbench_aig.training.adversarial`. ``n-fgsm`` and ``pgd`` train on the perturbed images alone,
            ``trades`` on cross-entropy of the clean ones + ``beta`` x KL(clean || perturbed).
        eps: radius of the L-infinity ball in units of the pixel range, such as ``8/255``; 0 without an adversary.
        inner_steps: steps of ``pgd`` and ``trades``; ``n-fgsm`` takes one.
        inner_step: size of a step as a share of ``eps``.
        inner_start: half the width of the uniform noise at the start as a share of ``eps``; ``trades`` has its own.
        inner_noise: gates in the search for a perturbation: sampled with noise of its ``own``, or with that which the
            training step ``shared``.
        beta: 1 / lambda of TRADES.
        averaging: decay of the moving average of weights that is validated and kept; 0 keeps the last step's weights.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["step", "cosine"] = "cosine"
    milestones: tuple[int, ...] = ()
    warmup: int = 0
    crop_padding: int = 4
    resized_crop: bool = False
    crop_size: int = 0
    flip: bool = True
    label_smoothing: float = 0.0
    target_rate: float | tuple[float, ...] = 0.7
    target_weight: float = 2.0
    gates: Literal["straight-through", "soft"] = "straight-through"
    temperature: float = 1.0
    bf16: bool = False
    compile: bool = False
    adversary: Literal["none", "n-fgsm", "pgd", "trades"] = "none"
    eps: str = "0"
    inner_steps: int = 10
    inner_step: float = 0.25
    inner_start: float = 1.0
    inner_noise: Literal["own", "shared"] = "own"
    beta: float = 6.0
    averaging: float = 0.0

    def __post_init__(self) -> None:
        rates = (self.target_rate,) if isinstance(self.target_rate, float | int) else self.target_rate
        if not all(0 <= rate <= 1 for rate in rates):
            raise UsageError(f"target rates must lie in [0, 1], not {self.target_rate}.")
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError("epochs and batch size must be at least 1.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"the learning rate must be a positive number, not {self.lr}.")
        if not 0 <= self.averaging < 1:
            raise UsageError(f"the decay of averaged weights must lie in [0, 1), not {self.averaging}.")
        if self.inner_steps < 1 or not self.inner_step > 0 or not self.inner_start >= 0 or not self.beta >= 0:
            raise UsageError("inner steps must be at least 1 and of a size above 0, their start and beta at least 0.")
        sizes = parse_epsilons([self.eps])
        if len(sizes) > 1:
            raise UsageError(f"training takes one epsilon, not {len(sizes)} as in '{self.eps}'; write 8/255.")
        if self.adversarial and not 0 < sizes[0].value <= 1:
            raise UsageError(f"the epsilon to train with must be above 0 and at most 1, not {self.eps}; write 8/255.")
        if sizes[0].value and not self.adversarial:
            raise UsageError("this recipe trains on clean images and takes no --eps; choose n-fgsm, pgd-at or trades.")

    @property
    def adversarial(self) -> bool:
        """Whether training images are perturbed."""
        return self.adversary != "none"

    @property
    def radius(self) -> float:
        """``eps`` as a number."""
        return parse_epsilons([self.eps])[0].value

    def targets(self, gates: int) -> tuple[float, ...]:
        """The target rate of each gate.

        Raises:
            UsageError: a schedule of another length than the network has gates.
        """
        if isinstance(self.target_rate, float | int):
            return (float(self.target_rate),) * gates
        if len(self.target_rate) != gates:
            raise UsageError(
                f"the target-rate schedule has {len(self.target_rate)} entries, the network {gates} gates."
            )
        return self.target_rate

    def rate(self, epoch: float) -> float:
        """Learning rate at a point of the training, in epochs from 0."""
        if epoch < self.warmup:
            return self.lr * epoch / self.warmup
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        progress = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def parse_rates(text: str | None) -> float | tuple[float, ...] | None:
    """Read a target rate (``0.7``) or one per gate (``1,1,0.8,0.7``); None stays None.

    Raises:
        UsageError: a part is not a number.
    """
    if text is None:
        return None
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"target rate '{text}' is not understood; write 0.7, or one per gate: 1,1,0.8.") from None
    return rates if len(rates) > 1 else rates[0]


def recipes() -> dict[str, dict[str, Any]]:
    """The tables of ``recipes.toml`` with what they extend filled in."""
    raw = tomllib.loads(files("robustbench_aig.training").joinpath("recipes.toml").read_text())

    def resolve(name: str) -> dict[str, Any]:
        table = dict(raw[name])
        parent = table.pop("extends", None)
        return {**resolve(parent), **table} if parent else table

    return {name: resolve(name) for name in raw}


def recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by name with some settings changed; changing ``epochs`` moves milestones and warm-up in proportion.

    Args:
        name: such as ``paper``.
        changes: fields of :class:`Recipe`; those that are None are left as they are.

    Raises:
        UsageError: unknown recipe, or a value out of range.
    """
    table = recipes()
    if name not in table:
        raise unknown("recipe", name, table)
    fields = table[name]
    changes = {key: value for key, value in changes.items() if value is not None}
    if "epochs" in changes and "milestones" not in changes:
        share = changes["epochs"] / fields["epochs"]
        fields["milestones"] = [max(1, round(milestone * share)) for milestone in fields.get("milestones", ())]
        fields["warmup"] = round(fields.get("warmup", 0) * share)
    fields |= changes
    for key in ("milestones", "target_rate"):
        if isinstance(fields.get(key), list):
            fields[key] = tuple(fields[key])
    return Recipe(**fields)
