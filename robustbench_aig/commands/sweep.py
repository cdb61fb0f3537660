"""``sweep``: attack models over epsilons."""

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import attacks
import defenses
from robustbench_aig.commands.options import (
    PATH,
    data_options,
    device_option,
    json_option,
    load_data,
    number_or_auto,
    quiet_option,
    split_option,
)
from robustbench_aig.commands.output import print_rows, show_result
from robustbench_aig.errors import UsageError, UserError

if TYPE_CHECKING:
    from robustbench_aig.engine.plan import Settings

SOME_FAILED, NOT_VALID = 4, 5
PAPER = {
    "attack": ["fgsm"],
    "norm": None,
    "gating": ["stochastic", "deterministic"],
    "defense": ["none", "jpeg:75,floor"],
    "attacker": ["static", "adaptive"],  # the paper's, and under it what an attacker reaches who knows gates and codec
    "draws": 1,
}

"""What --protocol paper stands for."""

REFERENCE_IMAGES = 200
REFERENCE_SPLIT = {"test": "validation", "train": "validation", "validation": "train", "trainval": "test"}
"""Where images to learn from come from, by the split that is attacked: never from that one."""


@click.command()
@click.option("-m", "--model", multiple=True, required=True, help="What to attack; see above.")
@data_options
@split_option
@click.option("--limit", type=int, help="At most this many images (a stratified subset).")
@click.option(
    "-a",
    "--attack",
    multiple=True,
    default=["fgsm"],
    show_default=True,
    help="NAME[:key=value,…] or FILE.py:Class; see list.",
)
@click.option(
    "--norm",
    type=click.Choice(["linf", "l2", "l1", "l0"]),
    help="Of the perturbation; l0 counts pixels [the attack's own, else linf].",
)
@click.option(
    "--eps",
    multiple=True,
    help="0,2/255,.03; start:stop:count; in the attacks' norm [0:16/255:9 in linf, 0:1:5 in l2, …].",
)
@click.option(
    "--gating",
    multiple=True,
    default=["stochastic", "deterministic"],
    show_default=True,
    help="Also deterministic:T, expected; models without gates have none.",
)
@click.option(
    "-d",
    "--defense",
    multiple=True,
    default=["none"],
    show_default=True,
    help="jpeg:75+median, or FILE.py:Class; see list.",
)
@click.option(
    "--attacker",
    multiple=True,
    type=click.Choice(["static", "adaptive", "known-noise"]),
    default=["static", "adaptive"],
    show_default=True,
    help="What the attacker knows; known-noise also knows the scoring draws.",
)
@click.option(
    "--protocol",
    type=click.Choice(["paper"]),
    help="Section 4.3: FGSM, one gate draw, JPEG-75 with floor; and the adaptive attacker.",
)
@click.option("--draws", default=10, show_default=True, help="Scoring draws of anything random.")
@click.option(
    "--eot", default="8", show_default=True, help="Draws that one adaptive gradient averages over; auto doubles them."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of gradients, for attacks that are as strong with less (pgd, bim); verdicts are always in float32.",
)
@click.option("--seed", multiple=True, type=int, default=[0], show_default=True, help="Each repeats the grid.")
@click.option("--batch-size", default="auto", show_default=True, help="Images per pass, or auto.")
@click.option("--audit", type=click.Choice(["core", "full"]), default="core", show_default=True, help="Tier of checks.")
@click.option("--strict", is_flag=True, help="Exit with 5 if a check fails.")
@click.option("--dry-run", is_flag=True, help="Print the planned cells and stop.")
@click.option("-o", "--out", type=PATH, help="Run folder; the same command resumes.")
@device_option
@json_option
@quiet_option
def sweep(**given: Any) -> int:
    """Attack models over epsilons, with and without defences; record what happens to gates.

    Models are zoo names (resnet20-cifar10), ARCHITECTURE@CHECKPOINT, torchvision:NAME, timm:NAME, or FILE.py:factory.

    Example: robustbench-aig sweep -m aig20-cifar10 --data cifar10 -a fgsm -a pgd:steps=40 -d jpeg:75 -o results/first
    """
    if given["out"] is None and not given["dry_run"]:
        raise UsageError("name the run folder with -o, for example -o results/first.")
    if given["protocol"]:
        given |= _protocol()
    with redirect_stdout(sys.stderr):  # whatever a model prints: results alone go to stdout
        settings = settings_of(given)
    given["eps"] = given["eps"] or [epsilon.label for epsilon in settings.epsilons]
    from robustbench_aig.audit.runner import sweep as compute
    from robustbench_aig.engine.plan import plan
    from robustbench_aig.progress import progress

    if given["dry_run"]:
        print_rows([{"id": cell.id, "label": cell.label} for cell in plan(settings)], given["as_json"])
        return 0
    kept = set(given) - {"data_dir", "download", "out", "strict", "dry_run", "as_json", "quiet"}
    with progress(given["quiet"]) as reporter, redirect_stdout(sys.stderr):
        config = {name: given[name] for name in sorted(kept)}
        done = compute(settings, given["out"], tier=given["audit"], config=config, progress=reporter)
    if given["quiet"]:  # else it was told when it happened
        _tell(done.failed)
    if not done.done + done.skipped:
        raise UserError(f"every cell failed ({next(iter(done.failed.values()))}); mend that and sweep again.")
    show_result(given["out"], given["as_json"])
    if done.failed:
        click.echo("Some cells failed; the rest is saved, and the same command tries them again.", err=True)
        return SOME_FAILED
    if given["strict"] and not done.claim_valid:
        click.echo("A check of the audit failed (--strict): this run is no robustness claim.", err=True)
        return NOT_VALID
    return 0


def _protocol() -> dict[str, Any]:
    """The options of the paper's protocol.

    Raises:
        UsageError: one of them is given too.
    """
    source = click.get_current_context().get_parameter_source
    given = [f"--{name}" for name in PAPER if source(name) is not ParameterSource.DEFAULT]
    if given:
        raise UsageError(f"--protocol paper chooses {' and '.join(given)} itself; leave that out, or --protocol.")
    return PAPER


def _tell(failed: Mapping[str, str]) -> None:
    """Print why cells failed, a reason once."""
    labels: dict[str, list[str]] = {}
    for label, reason in failed.items():
        labels.setdefault(reason, []).append(label)
    for reason, (first, *others) in labels.items():
        more = f" and {len(others)} more" if others else ""
        click.echo(f"failed: {first}{more}: {reason}", err=True)


def settings_of(given: Mapping[str, Any]) -> "Settings":
    """The grid that the options of a sweep describe, tried on a few images."""
    from robustbench_aig.contracts.epsilons import default_epsilons, parse_epsilons
    from robustbench_aig.contracts.gating import Gating
    from robustbench_aig.models.resolve import check_name, load_models

    epsilons = parse_epsilons(given["eps"]) if given["eps"] else None
    gatings = tuple(dict.fromkeys(map(Gating.parse, given["gating"])))
    size, eot = (number_or_auto(given, name) for name in ("batch_size", "eot"))
    for model in given["model"]:  # wrong names are answered before torch is imported
        check_name(model)
    for attack in given["attack"]:
        attacks.registry.find(attack)
    for member in "+".join(given["defense"]).split("+"):
        defenses.registry.find(member.strip())
    split = given.get("split", "test")
    dataset = load_data(given, split=split, limit=given["limit"], seed=given["seed"][0])
    from robustbench_aig.device import resolve_device
    from robustbench_aig.engine.plan import Settings
    from robustbench_aig.engine.preflight import preflight

    norm = {"norm": given["norm"]} if given["norm"] else {}
    device = resolve_device(given["device"])
    chosen = [attacks.make(name, **norm) for name in dict.fromkeys(given["attack"])]
    reference = None
    if any(attack.learns for attack in chosen):
        reference = load_data(given, split=REFERENCE_SPLIT[split], limit=REFERENCE_IMAGES)
    settings = Settings(
        attacks=chosen,
        reference=reference,
        dataset=dataset,
        models=load_models(given["model"], device),
        epsilons=epsilons or default_epsilons(attack.norm for attack in chosen),
        gatings=gatings,
        defenses=[defenses.make(name) for name in dict.fromkeys(given["defense"])],
        attackers=tuple(dict.fromkeys(given["attacker"])),
        draws=given["draws"],
        eot=eot or "auto",
        half=given.get("precision") == "bfloat16",
        seeds=tuple(dict.fromkeys(given["seed"])),
        device=device,
        batch_size=size,
    )
    preflight(settings)
    return settings
