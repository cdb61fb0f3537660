"""``check``: does a network keep the contract."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from robustbench_aig.commands.options import PATH, device_option, json_option, places
from robustbench_aig.errors import UsageError, UserError

if TYPE_CHECKING:
    from torch import Tensor

IMAGES = 16


@click.command()
@click.option("-m", "--model", required=True, help="As for sweep; FILE.py:factory for a network of your own.")
@click.option("--data", help="Take the images of this data set; see 'list datasets'.")
@click.option("--data-dir", type=PATH, help="Where data sets are [$ROBUSTBENCH_AIG_DATA, ./data].")
@click.option("--download", is_flag=True, help="Fetch the data set if it is missing (CIFAR-10).")
@click.option("--image-shape", metavar="CxHxW", help="Take random images of this shape, such as 3x32x32.")
@click.option("--seed", default=0, show_default=True, help="Of random images and of the draws of decisions.")
@device_option
@json_option
def check(**given: Any) -> int:
    """Test whether a network keeps the contract: one line for each requirement, with a remedy where it fails.

    Every network must map images in [0, 1] to logits, each image for itself, and let gradients through. A network
    that decides what to run must also ask for its decisions, do what it is told, and pay for what it runs. Exits with
    1 if a test fails.

    Example: robustbench-aig check -m mynetwork.py:factory --image-shape 3x32x32
    """
    from robustbench_aig.models.resolve import check_name, load_model

    check_name(given["model"])
    if given["data"] and given["image_shape"]:
        raise UsageError("--data and --image-shape both say what the images are; leave one of them out.")
    shape = _shape(given["image_shape"])
    from robustbench_aig.conformance import examine
    from robustbench_aig.device import resolve_device

    device = resolve_device(given["device"])
    model = load_model(given["model"], device)
    images, classes = _images(given, shape or model.image_shape)
    findings = []
    for finding in examine(model.network, images.to(device), classes or model.classes, given["seed"]):
        findings.append(finding)
        if not given["as_json"]:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.verdict:4}  {finding.test:22}  {finding.measured}{remedy}.")
    if given["as_json"]:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    failures = sum(finding.verdict == "FAIL" for finding in findings)
    decides = "" if model.layout else "; the network decides nothing, so the tests of decisions were left out"
    click.echo(f"{model.name}: {failures} of {len(findings)} tests failed{decides}.", err=True)
    return UserError.exit_code if failures else 0


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise UsageError(f"--image-shape is channels, height and width, as in 3x32x32, not '{text}'.")
    channels, height, width = map(int, found.groups())
    return channels, height, width


def _images(given: Mapping[str, Any], shape: tuple[int, int, int] | None) -> "tuple[Tensor, int | None]":
    """Images (N, C, H, W), and the number of their classes where they are of a data set."""
    import torch

    if given["data"]:
        from robustbench_aig.data import load_dataset

        data = load_dataset(given["data"], limit=IMAGES, seed=given["seed"], **places(given))
        return data.images(torch.arange(len(data))), len(data.classes)
    if shape is None:
        raise UsageError("nothing says what images the network takes; add --data NAME or --image-shape 3x32x32.")
    generator = torch.Generator().manual_seed(given["seed"])
    return torch.rand((IMAGES, *shape), generator=generator), None
