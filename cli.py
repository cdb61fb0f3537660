"""The command line: parse, call, print. torch is imported inside commands, so that help and lists answer at once.

Commands that need attacks or defences are here; the others are in ``robustbench_aig.commands``.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import attacks
import defenses
from robustbench_aig import __version__
from robustbench_aig.commands.analyze import analyze
from robustbench_aig.commands.doctor import doctor
from robustbench_aig.commands.options import (
    PATH,
    data_options,
    device_option,
    json_option,
    number_or_auto,
    places,
    quiet_option,
    run_argument,
)
from robustbench_aig.commands.output import print_rows, show_result
from robustbench_aig.commands.runs import compare, report, show
from robustbench_aig.commands.train import import_command, train
from robustbench_aig.errors import UsageError, UserError
from robustbench_aig.terminal import Program, console, read_config

if TYPE_CHECKING:
    from robustbench_aig.evaluation.plan import Settings

SOME_FAILED, NOT_VALID = 4, 5
PAPER = {
    "attack": ["fgsm"],
    "gating": ["stochastic", "deterministic"],
    "defense": ["none", "jpeg:75,floor"],
    "attacker": ["static", "adaptive"],  # the paper's, and under it what an attacker reaches who knows gates and codec
    "draws": 1,
}
DEMO = (
    "train resnet20 --data digits --recipe digits --device {device} -o {checkpoints}/resnet20",
    "train aig20 --data digits --recipe digits --device {device} -o {checkpoints}/aig20",
    "sweep -m resnet20@{checkpoints}/resnet20 -m aig20@{checkpoints}/aig20 --data digits -a fgsm --eps 0:0.3:7"
    " -d none -d jpeg:75 --attacker static --device {device} -o {out}",
    "report --quiet {out}",
)

REFERENCE_IMAGES = 200


@click.group(
    "robustbench-aig",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ROBUSTBENCH_AIG"},
)
@click.version_option(__version__)
@click.option(
    "--config", type=PATH, callback=read_config, is_eager=True, expose_value=False, help="TOML file of options."
)
def cli() -> None:
    """Measure how robust image classifiers really are, with a look inside the gates of ConvNet-AIG.

    Results go to stdout, everything else to stderr. Options come from the command line, then from the environment
    (ROBUSTBENCH_AIG_SWEEP_DRAWS=20), then from --config FILE.toml with a table per command ([sweep], [train]).

    Exit codes: 0 done, 1 failed, 2 usage, 3 something is missing (data, checkpoint, CUDA), 4 some cells failed,
    5 a --strict check failed, 130 interrupted; the same command goes on.
    """
    for module in (attacks, defenses):  # common names: refuse to run with anybody else's
        found = Path(module.__file__ or "").resolve().parent
        if found != Path(__file__).resolve().parent / module.__name__:
            raise UserError(
                f"the module '{module.__name__}' in use is {found}, not this suite's; "
                "install the suite into an environment of its own."
            )


@click.command()
@click.option("-o", "--out", default="results/demo", show_default=True, help="Run folder.")
@click.option("--checkpoints", default="checkpoints/demo", show_default=True, help="Where the two models go.")
@device_option
def demo(**given: str) -> None:
    """Train a ResNet and an AIG on digits, attack them with and without JPEG, report."""
    for command in DEMO:
        words = [word.format(**given) for word in shlex.split(command)]
        click.echo(f"$ {shlex.join([str(cli.name), *words])}", err=True)
        with cli.make_context(str(cli.name), words) as ctx:
            code = cli.invoke(ctx)
        if code:
            ctx.exit(code)


@click.command()
@click.option("-m", "--model", multiple=True, required=True, help="What to attack; see above.")
@data_options
@click.option("--limit", type=int, help="At most this many images (a stratified subset).")
@click.option(
    "-a", "--attack", multiple=True, default=["fgsm"], show_default=True, help="NAME[:key=value,…]; see list."
)
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="Of the perturbation [the attack's own, else linf].")
@click.option("--eps", multiple=True, default=["0:16/255:9"], show_default=True, help="0,2/255,.03; start:stop:count.")
@click.option(
    "--gating",
    multiple=True,
    default=["stochastic", "deterministic"],
    show_default=True,
    help="Also deterministic:T, expected; models without gates have none.",
)
@click.option("-d", "--defense", multiple=True, default=["none"], show_default=True, help="jpeg:75+median; see list.")
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
    settings = _settings(given | PAPER if given["protocol"] else given)
    from robustbench_aig.evaluation.plan import plan
    from robustbench_aig.evaluation.sweep import sweep as compute
    from robustbench_aig.progress import progress

    if given["dry_run"]:
        print_rows([{"id": cell.id, "label": cell.label} for cell in plan(settings)], given["as_json"])
        return 0
    kept = set(given) - {"data_dir", "download", "out", "strict", "dry_run", "as_json", "quiet"}
    with progress(given["quiet"]) as reporter:
        done = compute(settings, given["out"], config={name: given[name] for name in sorted(kept)}, progress=reporter)
    show_result(given["out"], given["as_json"])
    for label, reason in done.failed.items():
        click.echo(f"failed: {label}: {reason}", err=True)
    if done.failed:
        click.echo("Some cells failed; the rest is saved, and the same command tries them again.", err=True)
        return SOME_FAILED
    if given["strict"] and not done.claim_valid:
        click.echo("A check of the audit failed (--strict): this run is no robustness claim.", err=True)
        return NOT_VALID
    return 0


def _settings(given: Mapping[str, Any]) -> "Settings":
    """The grid that the options of a sweep describe, tried on a few images."""
    from robustbench_aig.data import load_dataset
    from robustbench_aig.evaluation.epsilons import parse_epsilons
    from robustbench_aig.evaluation.gating import Gating
    from robustbench_aig.models.resolve import check_name, load_models

    epsilons = parse_epsilons(given["eps"])
    gatings = tuple(dict.fromkeys(map(Gating.parse, given["gating"])))
    size, eot = (number_or_auto(given, name) for name in ("batch_size", "eot"))
    for model in given["model"]:  # wrong names are answered before torch is imported
        check_name(model)
    for attack in given["attack"]:
        attacks.registry.find(attack)
    for member in "+".join(given["defense"]).split("+"):
        defenses.registry.find(member.strip())
    dataset = load_dataset(given["data"], limit=given["limit"], seed=given["seed"][0], **places(given))
    from robustbench_aig.device import resolve_device
    from robustbench_aig.evaluation.plan import Settings
    from robustbench_aig.evaluation.preflight import preflight

    norm = {"norm": given["norm"]} if given["norm"] else {}
    made = [defenses.make(name) for name in dict.fromkeys(given["defense"])]
    device = resolve_device(given["device"])
    chosen = [attacks.make(name, **norm) for name in dict.fromkeys(given["attack"])]
    reference = None
    if any(attack.learns for attack in chosen):
        reference = load_dataset(given["data"], split="validation", limit=REFERENCE_IMAGES, **places(given))
    settings = Settings(
        attacks=chosen,
        reference=reference,
        dataset=dataset,
        models=load_models(given["model"], device),
        epsilons=epsilons,
        gatings=gatings,
        defenses=[None if defense.key == "none" else defense for defense in made],
        attackers=tuple(dict.fromkeys(given["attacker"])),
        draws=given["draws"],
        eot=eot or "auto",
        half=given.get("precision") == "bfloat16",
        seeds=tuple(dict.fromkeys(given["seed"])),
        device=device,
        batch_size=size,
        audit=given["audit"],
    )
    preflight(settings)
    return settings


@click.command()
@click.option("-m", "--model", default="aig20-cifar10", show_default=True, help="With at most ten gates.")
@data_options
@click.option("--limit", default=64, show_default=True, help="Images.")
@click.option("--repeats", default=3, show_default=True, help="Independent gradients of each estimator.")
@click.option("--seed", default=0, show_default=True, help="Of the gate draws.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder for estimators.csv, .png and .json.")
@device_option
@json_option
def estimators(**given: Any) -> None:
    """How near estimators of the gradient through sampled gates come to the exact gradient.

    Example: robustbench-aig estimators -m aig20-cifar10 --data cifar10 -o results/estimators
    """
    from robustbench_aig.models.resolve import check_name

    check_name(given["model"])
    if given["repeats"] < 1:
        raise UsageError("--repeats must be 1 or more.")
    from attacks.gates import fidelity
    from robustbench_aig.data import load_dataset
    from robustbench_aig.device import resolve_device
    from robustbench_aig.models.resolve import load_model

    device = resolve_device(given["device"])
    dataset = load_dataset(given["data"], limit=given["limit"], seed=given["seed"], **places(given))
    table = fidelity.study(
        load_model(given["model"], device), dataset, device, seed=given["seed"], repeats=given["repeats"]
    )
    config = {name: given[name] for name in ("model", "data", "limit", "repeats", "seed")}
    files = list(fidelity.save(table, given["out"], config, device))
    print_rows(json.loads(table.round(4).to_json(orient="records")), given["as_json"])
    for path in files:
        click.echo(f"wrote {path}", err=True)


@click.command()
@run_argument
@click.option("--full", is_flag=True, help="First run the full tier, on the models and data of the sweep.")
@click.option("--data-dir", type=PATH, help="With --full: where data sets are [$ROBUSTBENCH_AIG_DATA, ./data].")
@click.option("--strict", is_flag=True, help="Exit with 5 if a check failed.")
@json_option
@quiet_option
def audit(run: Path, full: bool, data_dir: Path | None, strict: bool, as_json: bool, quiet: bool) -> int:
    """Show what the audit of a run found, with symptom and remedy; or repeat its attacks, stronger (--full)."""
    from robustbench_aig.report import audit_run

    if full:
        _audit_again(run, data_dir, quiet)
    found = audit_run(run, None if as_json else console())
    if as_json:
        click.echo(json.dumps(found, indent=1))
    return NOT_VALID if strict and not found["claim_valid"] else 0


def _audit_again(run: Path, data_dir: Path | None, quiet: bool) -> None:
    """Resume a finished sweep with the full tier of its audit."""
    from robustbench_aig.evaluation.sweep import sweep as compute
    from robustbench_aig.progress import progress
    from robustbench_aig.report import read_run

    config = read_run(run).config
    if "model" not in config:
        raise UserError(f"{run} does not say how it was swept; sweep again with the full tier of the audit.")
    given = {**config, "audit": "full", "data_dir": data_dir, "download": False}
    settings = _settings(given | PAPER if given["protocol"] else given)
    with progress(quiet) as reporter:
        compute(settings, run, config={**config, "audit": "full"}, progress=reporter)


@click.command("list")
@click.argument(
    "what",
    metavar="KIND",
    type=click.Choice(["models", "systems", "attacks", "defenses", "datasets", "recipes", "checks", "benchmarks"]),
)
@click.option("--macs", is_flag=True, help="Models: parameters and multiply-adds, beside the paper's.")
@json_option
def list_command(what: str, macs: bool, as_json: bool) -> None:
    """List models, systems of the paper, attacks, defenses, datasets, recipes, checks or benchmarks."""
    if what == "benchmarks":
        from attacks.benchmarks import BENCHMARKS

        print_rows([{"name": name, "summary": entry.summary} for name, entry in BENCHMARKS.items()], as_json)
        return
    from robustbench_aig.listing import rows

    print_rows(rows(what, {"attacks": attacks.registry, "defenses": defenses.registry}, macs), as_json)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("-m", "--model", default="resnet20-cifar10", show_default=True, help="Without gates.")
@click.option("--gated", default="aig20-cifar10", show_default=True, help="With gates.")
@data_options
@click.option("--limit", default=512, show_default=True, help="Images.")
@click.option("--repeats", default=5, show_default=True, help="Interleaved timings of each contender.")
@click.option("-o", "--out", type=PATH, help="Folder for NAME.csv and NAME.json (versions and machine).")
@device_option
@json_option
def bench(names: tuple[str, ...], **given: Any) -> None:
    """Time the suite beside the fewest passes that an answer needs, and beside other libraries.

    NAME is any of 'list benchmarks', or all; without one fgsm and audit. Ratios are of medians of interleaved repeats.
    """
    import attacks.benchmarks as table

    chosen = list(table.BENCHMARKS) if names == ("all",) else list(dict.fromkeys(names or table.DEFAULT))
    benchmarks = [table.find(name) for name in chosen]
    from attacks.benchmarks.run import save, shown, subject_of

    subject = subject_of(defenses.make("jpeg:75"), **given)
    rows = []
    for benchmark in benchmarks:
        found = benchmark.run(subject)
        rows += found
        if given["out"]:
            save(given["out"], benchmark.name, found, subject)
        if not given["as_json"]:
            print_rows(shown(found), as_json=False)
    if given["as_json"]:
        click.echo(json.dumps([row.as_dict() for row in rows], indent=1))


COMMANDS = (  # in the order of use, as the help shows them
    *(demo, train, sweep, report, compare, show, analyze, estimators),
    *(audit, list_command, import_command, bench, doctor),
)
for command in COMMANDS:
    cli.add_command(command)


def main() -> NoReturn:
    """Entry point of ``robustbench-aig`` and ``python cli.py``."""
    cli.main()


if __name__ == "__main__":
    main()
