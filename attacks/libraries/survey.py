"""Runs every attack of torchattacks and foolbox on a small network and says which work.

``python -m attacks.libraries.survey > docs/library-attacks.md`` writes the documentation's table.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.libraries import foolbox, torchattacks
from attacks.libraries.capability import Capability, settable
from robustbench_aig.contracts.crafting import Crafted, craft
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.contracts.target import Passes, Target

LIBRARIES: Mapping[str, Any] = {"torchattacks": torchattacks, "foolbox": foolbox}

BUDGETS: Mapping[str, tuple[float, float]] = {"linf": (0.02, 0.3), "l2": (0.2, 8.0), "l1": (2.0, 150.0), "l0": (4, 140)}
"""Two sizes of ball per norm, for images of 144 pixels and three colours."""

_SHORT = {"binary_search_steps": 5, "steps": 60}

QUICK: Mapping[str, Mapping[str, Any]] = {
    "torchattacks:AutoAttack": {"steps": 10},
    "torchattacks:EADEN": {"binary_search_steps": 5},
    "torchattacks:EADL1": {"binary_search_steps": 5},
    "torchattacks:OnePixel": {"steps": 5},
    "torchattacks:Pixle": {"restarts": 5, "max_iterations": 5},
    "torchattacks:Square": {"n_queries": 200},
    "foolbox:BoundaryAttack": {"steps": 500},
    "foolbox:EADAttack": _SHORT,
    "foolbox:GaussianBlurAttack": {"steps": 50},
    "foolbox:GenAttack": {"steps": 30},
    "foolbox:HopSkipJumpAttack": {"steps": 8, "initial_gradient_eval_steps": 20, "max_gradient_eval_steps": 40},
    "foolbox:L2CarliniWagnerAttack": _SHORT,
    "foolbox:LinearSearchBlendedUniformNoiseAttack": {"directions": 50, "steps": 50},
    "foolbox:LinearSearchContrastReductionAttack": {"steps": 20},
    "foolbox:SaltAndPepperNoiseAttack": {"steps": 100},
}
"""Parameters that make the slow ones quick, here and in the tests only."""

CLASSES, SIZE = 6, 12


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 12, 12) of 6 classes, a pattern each under noise, and their labels."""
    patterns = torch.rand(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    return 0.4 * patterns[labels] + 0.6 * noise, labels


def network() -> nn.Module:
    """A small convolutional network that classifies :func:`images`, trained here and now."""
    with torch.random.fork_rng(()):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 36, CLASSES)
        )
    inputs, labels = images(600, seed=1)
    for _ in range(150):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            parameter.data -= 0.1 * gradient
    return model.eval()


def target(model: nn.Module, count: int) -> Target:
    """The bare network, as an attacker who knows it sees it."""
    rows = torch.arange(count)
    return Target(model, Gating("none"), rows, rows, Passes.none(count), seed=0)


def attempt(name: str, model: nn.Module, count: int = 3) -> tuple[Target, Crafted]:
    """Run one attack, quickly, at two budgets of its own norm."""
    library, _, entry = name.partition(":")
    attack = LIBRARIES[library].build(entry, **QUICK.get(name, {}))
    inputs, labels = images(count, seed=2)
    aimed = target(model, count)
    return aimed, craft(attack, aimed, inputs, labels, BUDGETS[attack.norm])


def outcome(name: str, model: nn.Module) -> str:
    """``yes``, or what went wrong."""
    try:
        _, crafted = attempt(name, model)
    except Exception as error:
        return f"no: {type(error).__name__}: {error}"
    return "yes, some images NaN" if bool(crafted.invalid.any()) else "yes"


def document(outcomes: Callable[[str], str]) -> str:
    """The page ``docs/library-attacks.md``.

    Args:
        outcomes: the word for each attack that should run, by full name.
    """
    lines = [_HEAD]
    for library, table in LIBRARIES.items():
        runs = len(table.names())
        loaded = table.load()
        lines += [f"## {library} {loaded.__version__}: {runs} of {len(table.TABLE)}", "", _COLUMNS]
        module = loaded.attacks if library == "foolbox" else loaded
        for entry, capability in table.TABLE.items():
            ran = "no" if capability.missing else outcomes(f"{library}:{entry}")
            parameters = settable(getattr(module, entry), capability, table.MANAGED)
            lines.append(_row(f"{library}:{entry}", capability, ran, {} if capability.missing else parameters))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, capability: Capability, ran: str, parameters: Mapping[str, Any]) -> str:
    settings = ", ".join(
        f"`{key}={'follows ε' if key in capability.steps else _text(value)}`" for key, value in parameters.items()
    )
    remarks = [capability.summary]
    if capability.channels:
        remarks.append(f"images of {capability.channels} channels only")
    if capability.classes > 2:
        remarks.append(f"{capability.classes} classes or more")
    kept = "clean image on failure" if capability.clean_on_failure else ""
    remarks += [text for text in (capability.note, kept, capability.missing) if text]
    cells = (f"`{name}`", ran, ", ".join(capability.norms), capability.budget, capability.access, settings)
    return f"| {' | '.join(cells)} | {'; '.join(remarks)} |"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_COLUMNS = """| name | runs | norms | budget | uses | parameters | what it does |
|---|---|---|---|---|---|---|"""

_HEAD = """# Attacks of torchattacks and foolbox

Made by `python -m attacks.libraries.survey > docs/library-attacks.md`, which runs each attack on a small network.

Write `torchattacks:PGD`, or with parameters `torchattacks:PGD:steps=40`. The first norm is the attack's own; others are
chosen with the norm of the sweep. L0 counts pixels.

- **fixed**: the library aims at the budget, once per budget; what it returns outside the ball is projected onto it.
  Steps that *follow ε* are the library's default times ε over the library's default ε.
- **minimal**: the library looks for the smallest perturbation, once; at each budget it counts only where it lies
  within, and elsewhere the clean image stands.

The library sees a fixed function of each image: for a random model or defence, the log of the mean class probability
over the attacker's draws, the same draws for every image. Its success flags are not used, its black or NaN images count
as invalid, the passes that it spends are spread evenly over the batch, and the generators, modes and gradients that it
changes are put back. What a random attack does to an image depends on the batch that the image is in.
"""


if __name__ == "__main__":
    tiny = network()
    print(document(lambda name: outcome(name, tiny)), end="")
