"""Checkpoints of other projects: recognised by their keys, renamed to ours, refused when partial or unknown."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from robustbench_aig.errors import Prerequisite, UsageError, UserError, described, readable
from robustbench_aig.models import checkpoints
from robustbench_aig.models.architectures import Architecture, architecture, build
from robustbench_aig.models.resnet import CIFAR10_NORM, IMAGENET_NORM

_GATE = re.compile(r"(layer\d+\.\d+)\.(fc1bn|fc1|fc2)\.(\w+)$")

_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")
"""What files call the weights themselves, where they hold several sets: averaged ones (``model_ema``) are another."""

_DEPTH = 3
"""How many mappings deep the weights may lie."""

_MEANS, _STDS = ("mean", "mu", "_mean"), ("std", "sigma", "_std")
"""What a normalisation inside a model calls its constants."""


@dataclass(frozen=True)
class Weights:
    """What a foreign file holds.

    Attributes:
        tensors: by name, without prefixes that all names share.
        norm: mean and standard deviation of its normalisation, one number per channel; None where it holds none.
        part: what the file calls these weights, where it holds others too.
    """

    tensors: dict[str, Tensor]
    norm: tuple[list[float], list[float]] | None = None
    part: str = ""


def read(path: Path) -> Weights:
    """The weights in a foreign file, without running any code in it.

    They may lie below any names (``state_dict``, ``model_state_dict``, ``model_ema``, …), and under prefixes that
    wrappers add (``module.``, ``model.``, ``1.``, …).

    Raises:
        Prerequisite: there is no such file.
        UserError: it is damaged, holds more than data, no tensors, or several sets of them.
    """
    found = _sets(_loaded(path))
    plain = [name for name in _PLAIN if name in found]
    if not found:
        raise UserError(f"{path} holds no state_dict; save the model's state_dict and load that.")
    if len(found) > 1 and not plain:
        raise UserError(f"{path} holds several sets of weights ({_some(found)}); save the one you mean in a file.")
    part = plain[0] if plain else next(iter(found))
    return replace(_bare(found[part], path), part=part if len(found) > 1 else "")


def _loaded(path: Path) -> Any:
    """What the file holds, read as what its first bytes say that it is."""
    if not path.is_file():
        raise Prerequisite(f"no checkpoint at {path}; give the file that holds the weights.")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty; fetch it again.")
    if _is_torchscript(path):
        raise UserError(
            f"{path} is a TorchScript program; load it in a factory (FILE.py:factory) by torch.jit.load, "
            "or save its state_dict()."
        )
    with path.open("rb") as stream:
        safe = stream.read(9)[8:] == b"{"
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # of pickle protocols; the file is read or refused anyway
            if safe:
                return load_file(path)
            with path.open("rb") as stream:  # by name torch would go by the suffix
                return torch.load(stream, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is a pickle that would run code, or is damaged; save its state_dict alone and load that."
        ) from None
    except Exception as error:  # damaged files make their readers raise anything
        raise UserError(f"{path} cannot be read ({described(error)}); fetch it again.") from None


def _harmless() -> list[Any]:
    """What training scripts keep beside weights and what runs no code: parsed arguments and numbers of numpy."""
    scalar = np.float64(0).__reduce__()[0]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
    return [argparse.Namespace, np.dtype, *kinds, *named]


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # a damaged archive, which is told when it is read
        return False


def _sets(loaded: Any, depth: int = _DEPTH) -> dict[str, Mapping[str, Tensor]]:
    """The sets of tensors in nested mappings, by the name that they lie under."""
    if not isinstance(loaded, Mapping) or "param_groups" in loaded:  # an optimiser's state
        return {}
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    found: dict[str, Mapping[str, Tensor]] = {}
    for key, value in loaded.items() if depth and len(tensors) < len(loaded) else ():
        for inner, below in _sets(value, depth - 1).items():
            found.setdefault(inner if inner in _PLAIN and str(key) not in _PLAIN else str(key), below)
    return found or ({"": tensors} if tensors else {})


def _bare(tensors: Mapping[str, Tensor], path: Path) -> Weights:
    """The weights without shared prefixes, and apart from them the constants of a normalisation."""
    means, stds = (
        {key: value for key, value in tensors.items() if key.rpartition(".")[2] in names} for names in (_MEANS, _STDS)
    )
    rest = {key: value for key, value in tensors.items() if key not in means and key not in stds}
    while True:
        heads = {key.partition(".")[0] for key in rest}
        if len(heads) != 1 or not all("." in key.partition(".")[2] for key in rest):
            break
        rest = {key.partition(".")[2]: value for key, value in rest.items()}
    if not means and not stds:
        return Weights(rest)
    if len(means) != 1 or len(stds) != 1:
        raise UserError(f"{path} holds several normalisations ({_some([*means, *stds])}); write a factory for it.")
    mean, std = (next(iter(values.values())).flatten().tolist() for values in (means, stds))
    usable = len(mean) == len(std) and all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std)
    if not usable:
        raise UserError(
            f"{path} normalises by mean {_few(mean)} and deviation {_few(std)}, which are none of pixels in [0, 1]; "
            "write a factory for it."
        )
    return Weights(rest, (mean, std))


def _few(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values[:4])}]"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (", …" if len(listed) > 6 else "")


def load(path: Path, name: str) -> tuple[nn.Module, checkpoints.Card]:
    """Load a foreign checkpoint as architecture ``name``.

    Known layouts: CIFAR ResNets in akamaster's naming (option-A shortcuts and ImageNet normalisation), torchvision's
    ResNets, SkipNet-style plain ResNets (``layer1.0.downsample``), and the official ConvNet-AIG code's networks. A
    normalisation that the file holds takes the place of the layout's usual one.

    Returns:
        The network in eval mode and a card that says what is known of it.

    Raises:
        Prerequisite: there is no such file.
        UserError: the file does not hold exactly this architecture.
    """
    arch = architecture(name)
    weights = read(path)
    tensors = rename(weights.tensors, arch)
    wrapped = arch.family in ("aig", "stochastic-depth-resnet")
    head, stem = (tensors.get(f"trunk.{key}" if wrapped else key) for key in ("fc.weight", "conv1.weight"))
    if head is None or head.ndim != 2 or not len(head):
        raise UserError(f"{path} has no final linear layer under a known name; it is no {name}.")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    norm = weights.norm or _norm(arch, tensors)
    if len(norm[0]) not in (1, channels):
        raise UserError(
            f"{path} takes images of {channels} channels and does not say how they are normalised; "
            "write a factory that does (FILE.py:factory)."
        )
    options: dict[str, Any] = {"norm": [list(part) for part in norm]}
    if arch.scale == "cifar" and not any(".downsample." in key for key in tensors):
        options["shortcut"] = "A"
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
    source = f"{path.name}:{weights.part}" if weights.part else path.name
    return model, checkpoints.Card(name, labels, shape, options, source=readable(source))


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
