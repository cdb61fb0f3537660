"""The attacks of torchattacks by name (``torchattacks:PGD``): what each can do; ``build`` imports the library."""

import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attacks.libraries.capability import L0, L1, L2, LINF, Capability, request, runnable
from robustbench_aig.registry import register

if TYPE_CHECKING:
    from robustbench_aig.contracts.attack import Attack

MANAGED = ("model", "norm", "seed", "verbose", "n_classes")
"""Constructor parameters that the adapter sets."""

_BOTH = ("linf", "l2")


def _linf(summary: str, *steps: str, **more: Any) -> Capability:
    return Capability(summary, LINF, steps=steps, **more)


def _minimal(summary: str, norms: tuple[str, ...], **more: Any) -> Capability:
    return Capability(summary, norms, budget="minimal", **more)


TABLE: Mapping[str, Capability] = {
    "VANILA": _minimal("leaves images as they are", ("linf", "l2", "l1", "l0"), access="none", control=True),
    "GN": Capability(
        "Gaussian noise", L2, access="none", epsilon="std", note="std is the budget over the root of the image's size"
    ),
    "FGSM": _linf("one gradient step", iterated=False),
    "BIM": _linf("iterated FGSM from the clean image", "alpha"),
    "RFGSM": _linf("FGSM steps after a random sign step", "alpha"),
    "PGD": _linf("projected gradient steps from a random start", "alpha"),
    "EOTPGD": _linf("PGD on the mean of several gradients", "alpha"),
    "FFGSM": _linf("FGSM from a random start", "alpha", iterated=False),
    "TPGD": _linf("PGD on the divergence from the clean prediction", "alpha"),
    "MIFGSM": _linf("iterated FGSM with momentum", "alpha"),
    "UPGD": _linf("PGD with a choice of losses and momentum", "alpha"),
    "APGD": Capability("Auto-PGD", _BOTH, note="10 steps unless told otherwise", clean_on_failure=True),
    "APGDT": Capability(
        "Auto-PGD towards each of 9 likely classes",
        _BOTH,
        needs=("classes",),
        classes=4,
        note="10 steps unless told otherwise",
        clean_on_failure=True,
    ),
    "DIFGSM": _linf("iterated FGSM through random resizing", "alpha"),
    "TIFGSM": _linf("iterated FGSM with blurred gradients", "alpha", channels=3),
    "Jitter": _linf("PGD on scaled, noisy logits", "alpha"),
    "NIFGSM": _linf("iterated FGSM with Nesterov momentum", "alpha"),
    "PGDRS": _linf("PGD against Gaussian smoothing", "alpha"),
    "SINIFGSM": _linf("Nesterov FGSM averaged over image scales", "alpha"),
    "VMIFGSM": _linf("momentum FGSM with tuned gradient variance", "alpha"),
    "VNIFGSM": _linf("Nesterov FGSM with tuned gradient variance", "alpha"),
    "SPSA": _linf("gradient estimated from random differences", access="black-box", note="one step of 0.01 by default"),
    "JSMA": _minimal(
        "changes the pairs of values with the largest saliency",
        L0,
        needs=("goal",),
        note="aims at the likeliest wrong class; memory grows with the square of the image size",
    ),
    "EADL1": _minimal("elastic-net attack, smallest in L1", L1, clean_on_failure=True),
    "EADEN": _minimal("elastic-net attack, small in L1 and L2", ("l2", "l1"), clean_on_failure=True),
    "PIFGSM": _linf("iterated FGSM that spreads over patches", epsilon="max_epsilon", channels=3),
    "PIFGSMPP": _linf("patch-wise FGSM with temperature", epsilon="max_epsilon", channels=3),
    "CW": _minimal(
        "Carlini and Wagner's margin attack with a fixed constant",
        L2,
        needs=("logits above 0",),
        note="does not search for c; values of exactly 0 or 1 never move",
        clean_on_failure=True,
    ),
    "PGDL2": Capability("projected gradient steps in L2", L2, steps=("alpha",)),
    "DeepFool": _minimal("steps over the nearest linearised boundary", L2, note="one image at a time"),
    "PGDRSL2": Capability("PGD in L2 against Gaussian smoothing", L2, steps=("alpha",)),
    "SparseFool": _minimal("DeepFool with few values", L0, note="one image at a time"),
    "OnePixel": _minimal("differential evolution of a few pixels", L0, access="black-box", note="one image at a time"),
    "Pixle": _minimal("swaps pixels at random", L0, access="black-box", note="one image at a time"),
    "FAB": Capability(
        "smallest perturbation by projection onto boundaries",
        ("linf", "l2", "l1"),
        needs=("classes",),
        note="10 steps unless told otherwise",
        clean_on_failure=True,
    ),
    "AutoAttack": Capability(
        "APGD, targeted APGD, targeted FAB and Square in turn",
        _BOTH,
        classes=4,
        filled={"steps": 100},
        needs=("classes",),
        note="runs its parts for 100 steps, as the original does, not for the library's 10",
        clean_on_failure=True,
    ),
    "Square": Capability("random search with squares", _BOTH, access="black-box", clean_on_failure=True),
    "MultiAttack": Capability(
        "attacks in turn, each on what the ones before have left",
        ("linf", "l2", "l1"),
        filled={"attacks": "APGD+FAB"},
        note="attacks: names with fixed budgets joined by +, each with its defaults",
        clean_on_failure=True,
    ),
    "LGV": Capability(
        "attacks an ensemble collected by training on", LINF, missing="it trains more models, on the training set"
    ),
}


def names() -> Mapping[str, str]:
    """The attacks that can run, with a summary."""
    return runnable(TABLE)


@register(
    "torchattacks:NAME",
    "every attack of torchattacks by its own name",
    norms=("linf", "l2", "l1", "l0"),
    access="",
    budget="",
    aims_at="",
)
def build(entry: str, *, norm: str | None = None, goal: str = "untargeted", **parameters: Any) -> "Attack":
    """The attack ``torchattacks:entry``.

    Args:
        entry: its name in torchattacks.
        norm: that budgets are measured in; by default the attack's own.
        goal: only ``untargeted``.
        parameters: of the library's constructor. Steps (``alpha``) follow the budget unless given.

    Raises:
        UsageError: unknown name or parameter, a wrong value, norm or goal, or an attack that cannot run.
    """
    from attacks.libraries.run_torchattacks import TorchattacksAttack

    library = load()
    wanted = request("torchattacks", TABLE, entry, library, MANAGED, norm, goal, parameters)
    made = TorchattacksAttack(request=wanted, version=library.__version__)
    made.check()
    return made


def load() -> ModuleType:
    """Import the library."""
    import torchattacks

    module: ModuleType = torchattacks
    return module


def quiet() -> None:
    """Silence what the library is known to set off; to be called inside ``warnings.catch_warnings``."""
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
