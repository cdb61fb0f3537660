"""The attacks of foolbox by name (``foolbox:DDNAttack``): what each can do; ``build`` imports the library."""

import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attacks.libraries.capability import ANY, L0, L1, L2, LINF, Capability, request, runnable
from robustbench_aig.registry import register

if TYPE_CHECKING:
    from robustbench_aig.contracts.attack import Attack

MANAGED = ("distance", "constraint", "init_attack", "tensorboard", "channel_axis", "reduced_dims")
"""Constructor parameters that the adapter sets."""

_NORMS = {"L1": L1, "L2": L2, "Linf": LINF, "LInf": LINF, "L0": L0}


def _minimal(summary: str, norms: tuple[str, ...], **more: Any) -> Capability:
    return Capability(summary, norms, budget="minimal", **more)


def _fixed(prefixes: tuple[str, ...], stem: str, summary: str, **more: Any) -> dict[str, Capability]:
    """One attack under several norms, or forms of a norm."""
    norms = {prefix: next(norm for start, norm in _NORMS.items() if prefix.startswith(start)) for prefix in prefixes}
    return {f"{prefix}{stem}": Capability(summary, norm, **more) for prefix, norm in norms.items()}


_LP = ("L1", "L2", "Linf")
_ADAM = ("L1Adam", "L2Adam", "LinfAdam")
_START = "starts from a misclassified image found among noise, flat images and the batch; clean image without one"
_NO_NUMBA = "it needs numba, which this suite does not install"

TABLE: Mapping[str, Capability] = {
    "L2ContrastReductionAttack": Capability("lowers the contrast", L2, access="none"),
    "VirtualAdversarialAttack": Capability(
        "power iteration on the divergence from the clean prediction",
        L2,
        filled={"steps": 10},
        note="NaN where the divergence underflows",
    ),
    "DDNAttack": _minimal("decouples the direction and the length of steps", L2),
    **_fixed(_LP, "ProjectedGradientDescentAttack", "projected gradient steps from a random start"),
    **_fixed(_ADAM, "ProjectedGradientDescentAttack", "projected gradient with Adam steps"),
    **_fixed(_LP, "BasicIterativeAttack", "projected gradient steps from the clean image"),
    **_fixed(_ADAM, "BasicIterativeAttack", "Adam steps from the clean image"),
    **_fixed(_LP, "MomentumIterativeFastGradientMethod", "projected gradient steps with momentum"),
    **_fixed(_LP, "FastGradientAttack", "one gradient step", iterated=False),
    **_fixed(("L2",), "AdditiveGaussianNoiseAttack", "one draw of Gaussian noise", access="none"),
    **_fixed(("L2", "Linf"), "AdditiveUniformNoiseAttack", "one draw of uniform noise", access="none"),
    **_fixed(("L2ClippingAware",), "AdditiveGaussianNoiseAttack", "Gaussian noise of full size", access="none"),
    **_fixed(("L2ClippingAware",), "AdditiveUniformNoiseAttack", "uniform noise of full size", access="none"),
    **_fixed(
        ("L2Repeated", "L2ClippingAwareRepeated"),
        "AdditiveGaussianNoiseAttack",
        "draws of Gaussian noise until one fools",
        access="black-box",
        clean_on_failure=True,
    ),
    **_fixed(
        ("L2Repeated", "L2ClippingAwareRepeated", "LinfRepeated"),
        "AdditiveUniformNoiseAttack",
        "draws of uniform noise until one fools",
        access="black-box",
        clean_on_failure=True,
    ),
    "SparseL1DescentAttack": Capability("L1 steps on the largest gradients", L1),
    "InversionAttack": _minimal("the negative image", ANY, access="none"),
    "BinarySearchContrastReductionAttack": _minimal("smallest fooling loss of contrast", ANY, access="black-box"),
    "LinearSearchContrastReductionAttack": _minimal("first fooling loss of contrast", ANY, access="black-box"),
    "L2CarliniWagnerAttack": _minimal(
        "Carlini and Wagner's margin attack with a search for the constant",
        L2,
        note="90 000 steps by default; black image on failure, which never counts",
    ),
    "NewtonFoolAttack": _minimal("Newton steps on the class probability", L2, note="NaN where softmax saturates"),
    "EADAttack": _minimal(
        "elastic-net attack", L1, note="90 000 steps by default; black image on failure, which never counts"
    ),
    "GaussianBlurAttack": _minimal("smallest fooling blur", ANY, access="black-box"),
    "SpatialAttack": _minimal(
        "rotates and shifts", ANY, access="black-box", note="has no ball of its own, so few images lie within a budget"
    ),
    "L2DeepFoolAttack": _minimal("steps over the nearest linearised boundary", L2),
    "LinfDeepFoolAttack": _minimal("steps over the nearest linearised boundary", LINF),
    "SaltAndPepperNoiseAttack": _minimal("smallest fooling salt and pepper noise", L2, access="black-box"),
    "LinearSearchBlendedUniformNoiseAttack": _minimal("blends with noise", ANY, access="black-box"),
    "BinarizationRefinementAttack": _minimal(
        "snaps an adversarial image to a threshold",
        ANY,
        access="black-box",
        missing="it refines what others find, for models that binarise their input at a known threshold",
    ),
    "DatasetAttack": _minimal(
        "replaces an image by another one",
        ANY,
        access="black-box",
        needs=("feed",),
        note="the other images are those of the batch; has no ball of its own, so few images lie within a budget",
    ),
    "BoundaryAttack": _minimal("random walk along the boundary", L2, access="black-box", needs=("start",), note=_START),
    "HopSkipJumpAttack": _minimal(
        "estimates the boundary's normal from decisions",
        ("l2", "linf"),
        access="black-box",
        needs=("start",),
        note=_START,
    ),
    "L0BrendelBethgeAttack": _minimal("walks along the boundary", L0, missing=_NO_NUMBA),
    "L1BrendelBethgeAttack": _minimal("walks along the boundary", L1, missing=_NO_NUMBA),
    "L2BrendelBethgeAttack": _minimal("walks along the boundary", L2, missing=_NO_NUMBA),
    "LinfinityBrendelBethgeAttack": _minimal("walks along the boundary", LINF, missing=_NO_NUMBA),
    "L0FMNAttack": _minimal("smallest perturbation, by a ball that shrinks", L0),
    "L1FMNAttack": _minimal("smallest perturbation, by a ball that shrinks", L1),
    "L2FMNAttack": _minimal("smallest perturbation, by a ball that shrinks", L2),
    "LInfFMNAttack": _minimal("smallest perturbation, by a ball that shrinks", LINF),
    "GenAttack": Capability(
        "genetic search",
        LINF,
        access="black-box",
        needs=("goal", "log probabilities"),
        note="aims at the likeliest wrong class",
    ),
    "PointwiseAttack": _minimal(
        "resets values of a misclassified image one by one",
        ("l0", "l2", "l1", "linf"),
        access="black-box",
        needs=("start",),
        note=_START,
    ),
}


def names() -> Mapping[str, str]:
    """The attacks that can run, with a summary."""
    return runnable(TABLE)


@register(
    "foolbox:NAME",
    "every attack of foolbox by its own name",
    norms=("linf", "l2", "l1", "l0"),
    access="",
    budget="",
    aims_at="",
)
def build(entry: str, *, norm: str | None = None, goal: str = "untargeted", **parameters: Any) -> "Attack":
    """The attack ``foolbox:entry``.

    Args:
        entry: its class in foolbox.attacks.
        norm: that budgets are measured in; by default the attack's own.
        goal: only ``untargeted``.
        parameters: of the library's constructor.

    Raises:
        UsageError: unknown name or parameter, a wrong value, norm or goal, or an attack that cannot run.
    """
    from attacks.libraries.run_foolbox import FoolboxAttack

    library = load()
    wanted = request("foolbox", TABLE, entry, library.attacks, MANAGED, norm, goal, parameters)
    made = FoolboxAttack(request=wanted, version=library.__version__)
    made.check()
    return made


def load() -> ModuleType:
    """Import the library."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
        import foolbox
    module: ModuleType = foolbox
    return module


def quiet() -> None:
    """Silence what the library is known to set off; to be called inside ``warnings.catch_warnings``."""
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
    warnings.filterwarnings("ignore", ".* failed to draw sufficient random inputs", UserWarning)
