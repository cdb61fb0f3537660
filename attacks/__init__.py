"""Attacks: one attack, one file; listing them imports nothing heavy.

``make("pgd:steps=40,restarts=5", norm="l2")`` builds one.
"""

from typing import TYPE_CHECKING, Any

from robustbench_aig.registry import Registry

if TYPE_CHECKING:
    from robustbench_aig.contracts.attack import Attack

__all__ = ["make", "registry"]

_BOTH = ("linf", "l2")

registry: "Registry[Attack]" = Registry("attack", "robustbench_aig.attacks")


def _add(name: str, target: str, summary: str, paper: str, *, access: str = "white-box", budget: str = "fixed") -> None:
    registry.add(name, f"attacks.{target}", summary, norms=_BOTH, access=access, budget=budget, paper=paper)


_add("identity", "identity:Identity", "leaves images as they are: the null control", "", access="none")
_add("noise", "noise:Noise", "random directions of full size", "", access="none")
_add("fgsm", "fgsm:FGSM", "one gradient step, one gradient for all budgets", "Goodfellow et al. 2015")
_add("bim", "bim:BIM", "iterated FGSM from the clean image", "Kurakin et al. 2017")
_add("mifgsm", "mifgsm:MIFGSM", "iterated FGSM with momentum", "Dong et al. 2018")
_add("pgd", "pgd:PGD", "projected gradient steps with restarts", "Madry et al. 2018")
_add("apgd", "apgd:APGD", "Auto-PGD; loss=dlr for APGD-DLR", "Croce and Hein 2020")
_add("apgd-t", "apgd_t:APGDT", "Auto-PGD towards the likeliest wrong classes", "Croce and Hein 2020")
_add("square", "square:Square", "random search with squares", "Andriushchenko et al. 2020", access="black-box")
_add("fmn", "fmn:FMN", "smallest perturbation, by a ball that shrinks", "Pintor et al. 2021", budget="minimal")
_add("deepfool", "deepfool:DeepFool", "smallest step over a boundary", "Moosavi-Dezfooli et al. 2016", budget="minimal")
_add("auto", "auto:Auto", "worst of APGD, targeted APGD, FMN and Square", "Croce and Hein 2020")
_add("worst", "worst:Worst", "worst case over attacks: attacks=fgsm+pgd", "Carlini et al. 2019")

_FAMILY = "this project, after Veit and Belongie 2018, section 5"
_add("gates:open", "gates.compute:Open", "opens gates: most multiply-adds", _FAMILY)
_add("gates:close", "gates.compute:Close", "closes gates: fewest multiply-adds", _FAMILY)
_add("gates:route", "gates.route:RouteTo", "to a graph, an image's graph, a class's habits, or flips all", _FAMILY)
_add("gates:stealth", "gates.stealth:Hold", "a wrong class with every gate held", _FAMILY)
_add("gates:through", "gates.through:Through", "a wrong class through the gates alone", _FAMILY)
_add("gates:universal", "gates.universal:Universal", "one perturbation for all images, or for a class", _FAMILY)
_add("gates:joint", "gates.joint:Joint", "a wrong class, with a pull on the gates beside", _FAMILY)
_add("gates:ilfo", "gates.baselines:ILFO", "baseline: probability hinge", "Haque et al. 2020")
_add("gates:gradauto", "gates.baselines:GradAuto", "baseline: hinge without conflicts", "Pan et al. 2022")
_add("gates:gradmdm", "gates.baselines:GradMDM", "baseline: power loss", "Pan et al. 2023")
_add("gates:soft-twin", "gates.baselines:SoftTwin", "baseline: cross-entropy on a soft twin", "Tao et al. 2024")
_add("gates:uniform", "gates.baselines:Uniform", "baseline: gates towards one half", "Hong et al. 2021")
_add("gates:ce", "gates.baselines:CrossEntropy", "baseline: PGD, or rand with draws=20", "Croce and Hein 2020")
_add("gates:dc-shift", "gates.baselines:DCShift", "baseline: best constant colour", "", access="black-box")
_add("gates:sign-noise", "gates.baselines:SignNoise", "baseline: best random signs", "", access="black-box")
_add(
    "gates:square",
    "gates.baselines:Square",
    "baseline: random squares",
    "Andriushchenko et al. 2020",
    access="black-box",
)

registry.add_family("torchattacks", "attacks.libraries.torchattacks:build")
registry.add_family("foolbox", "attacks.libraries.foolbox:build")


def make(specification: str, **defaults: Any) -> "Attack":
    """Build an attack from ``name`` or ``name:key=value,key=value``.

    Args:
        specification: what to build.
        defaults: parameters set unless the specification sets them, such as ``norm``; what an attack lacks is left out.

    Raises:
        UsageError: an unknown name or parameter, or a bad value.
    """
    return registry.make(specification, **defaults)
