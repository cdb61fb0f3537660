"""Checkpoints of other projects: recognised by their keys, renamed to ours, refused when partial or unknown."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_aig.errors import Prerequisite, UsageError, UserError
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import Architecture, architecture, build
from robustbench_aig.models.resnet import CIFAR10_NORM, IMAGENET_NORM

_GATE = re.compile(r"(layer\d+\.\d+)\.(fc1bn|fc1|fc2)\.(\w+)$")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a foreign file, without running any code in it and without a ``module.`` prefix.

    Raises:
        Prerequisite: there is no such file.
        UserError: it is damaged, holds more than data, or no tensors.
    """
    if not path.is_file():
        raise Prerequisite(f"no checkpoint at {path}; give the file that holds the weights.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; the file is read or refused anyway
            safe = path.suffix == ".safetensors"
            loaded: Any = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is a pickle that would run code, or is damaged; save its state_dict alone and load that."
        ) from None
    except (RuntimeError, EOFError, OSError, SafetensorError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}); fetch it again.") from None
    for key in ("state_dict", "model", "net"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path} holds no state_dict; save the model's state_dict and load that.")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def load(path: Path, name: str) -> tuple[nn.Module, checkpoints.Card]:
    """Load a foreign checkpoint as architecture ``name``.

    Known layouts: CIFAR ResNets in akamaster's naming (option-A shortcuts and ImageNet normalisation), torchvision's
    ResNets, SkipNet-style plain ResNets (``layer1.0.downsample``), and the official ConvNet-AIG code's networks.

    Returns:
        The network in eval mode and a card that says what is known of it.

    Raises:
        Prerequisite: there is no such file.
        UserError: the file does not hold exactly this architecture.
    """
    arch = architecture(name)
    tensors = rename(read(path), arch)
    head = tensors.get("trunk.fc.weight" if arch.family == "aig" else "fc.weight")
    if head is None:
        raise UserError(f"{path} has no final linear layer under a known name; it is no {name}.")
    options: dict[str, Any] = {"norm": [list(part) for part in _norm(arch, tensors)]}
    if arch.scale == "cifar" and not any(".downsample." in key for key in tensors):
        options["shortcut"] = "A"
    stem = tensors.get("trunk.conv1.weight" if arch.family == "aig" else "conv1.weight")
    channels = 3 if stem is None else stem.shape[1]
    shape = (channels, *arch.image_shape[1:])
    try:
        model = build(name, classes=len(head), channels=channels, **options)
    except UsageError as error:
        raise UserError(f"{path} is no {name}: {error}") from None
    own = model.state_dict()
    for key in own.keys() - tensors.keys():
        if key.endswith("num_batches_tracked"):  # files written before PyTorch 0.4.1 lack them
            tensors[key] = own[key]
    checkpoints.fill(model, tensors, str(path))
    labels = [str(number) for number in range(len(head))]
    return model, checkpoints.Card(name, labels, shape, options, source=path.name)


def rename(tensors: Mapping[str, Tensor], arch: Architecture) -> dict[str, Tensor]:
    """Our keys for the tensors of a foreign file."""
    gates = {block: number for number, block in enumerate(_blocks(tensors))} if arch.family == "aig" else {}
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        gate = _GATE.match(key)
        if gate and arch.family == "aig":
            block, part, leaf = gate.groups()
            part = "bn" if part == "fc1bn" else part
            matrix = value.flatten(1) if part != "bn" and leaf == "weight" else value
            renamed[f"gates.{gates[block]}.{part}.{leaf}"] = matrix
            continue
        key = re.sub(r"^linear\.", "fc.", key).replace(".shortcut.", ".downsample.")
        wrapped = arch.family in ("aig", "stochastic-depth-resnet") and not key.startswith(("trunk.", "gates."))
        renamed[f"trunk.{key}" if wrapped else key] = value
    return renamed


def _blocks(tensors: Mapping[str, Tensor]) -> list[str]:
    found = {match.group(1) for key in tensors if (match := _GATE.match(key))}
    return sorted(found, key=lambda block: [int(number) for number in re.findall(r"\d+", block)])


def _norm(arch: Architecture, tensors: Mapping[str, Tensor]) -> Any:
    akamaster = arch.scale == "cifar" and not any(".downsample." in key for key in tensors)
    return IMAGENET_NORM if arch.scale == "imagenet" or akamaster else CIFAR10_NORM
