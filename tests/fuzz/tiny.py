"""The parts that tiny models are put together from, by name."""

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Any]


class Wordless(Exception):
    """An exception that has nothing to say, and cannot say it."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Base(BaseException):
    """An exception of no usual kind."""


def fail(error: BaseException) -> Change:
    def failing(images: Tensor) -> Any:
        raise type(error)(*error.args)

    return failing


LAYOUTS: Mapping[str, Change] = {
    "as they are": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}

LOOKS: Mapping[str, Change] = {
    "as they are": lambda x: x,
    "view": lambda x: x.view(x.shape) * 1,
    "write": lambda x: x.mul_(0.5),
    "write all": lambda x: x.sub_(x.detach().clone() * 0.25).clamp_(0, 1),
    "grey": lambda x: x.mean(1, keepdim=True),
    "double": lambda x: x.double().float(),
    "round": lambda x: (x * 15).round() / 15,
    "detach": lambda x: x.detach(),
    "noise": lambda x: x + torch.rand_like(x),
    "large": lambda x: x[:, :, :7],
    "assert": lambda x: fail(AssertionError())(x) if x.shape[2] != 32 else x,
    "few": lambda x: fail(ValueError("few\n\nimages"))(x) if len(x) > 4 else x,
    "alone": lambda x: fail(IndexError())(x) if len(x) == 1 else x,
    "many": lambda x: fail(RuntimeError(""))(x) if len(x) < 3 else x,
}

ENDS: Mapping[str, Change] = {
    "as they are": lambda x: x,
    "squeeze": lambda x: x.squeeze(),
    "double": lambda x: x.double(),
    "half": lambda x: x.bfloat16(),
    "view": lambda x: x.view(-1).view(x.shape),
    "expanded": lambda x: x[:, None].expand(-1, 2, -1)[:, 0],
    "none": lambda x: None,
    "pair": lambda x: (x, x),
    "dictionary": lambda x: {"logits": x},
    "list": lambda x: x.tolist(),
    "number": lambda x: x.sum(),
    "maps": lambda x: x[:, :, None, None],
    "two": lambda x: x[:, :2],
    "one": lambda x: x[:, :1],
    "empty": lambda x: x[:, :0],
    "first": lambda x: x[:1],
    "integers": lambda x: x.long(),
    "booleans": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.to_sparse(),
    "nan": lambda x: x / 0 * 0,
    "infinite": lambda x: x / 0,
    "softmax": lambda x: x.softmax(1),
    "constant": lambda x: x * 0,
    "detached": lambda x: x.detach(),
    "runtime error": fail(RuntimeError("no such layer")),
    "key error": fail(KeyError("layer")),
    "stop": fail(StopIteration()),
    "exit": fail(SystemExit(3)),
    "memory": fail(MemoryError()),
    "recursion": fail(RecursionError("too deep\nby far")),
    "wordless": fail(Wordless()),
    "base": fail(Base()),
    "abort": fail(GeneratorExit("gone")),
}

TEMPERS: Mapping[str, Change] = {
    "calm": lambda x: x,
    "calm too": lambda x: x,
    "gradient error": lambda x: fail(OSError("no gradients"))(x) if torch.is_grad_enabled() else x,
    "talking": lambda x: print("looking") or x,
}


class Net(nn.Module):
    """A linear network of 8 x 8 images between two changes."""

    def __init__(self, layout: Change, look: Change, end: Change, temper: Change) -> None:
        super().__init__()
        self.changes = (layout, look, temper)
        self.end = end
        self.weight = nn.Parameter(torch.randn((64, 10), generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Any:
        for change in self.changes:
            images = change(images)
        return self.end(images.reshape(len(images), -1) @ self.weight)


class SilentTrain(Net):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class NoState(Net):
    def state_dict(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError


class OddState(Net):
    def state_dict(self, *args: Any, **more: Any) -> Any:
        return {"a": ("b", 1, None), "c": {"d": torch.zeros(2).to_sparse()}, "e": object(), "f": torch.zeros(2) * 1j}


class Training(Net):
    def eval(self) -> Any:
        raise OSError("always training")


class Loose(nn.Module):
    """A module that calls another."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        return self.net(images)


def scripted(*parts: Change) -> nn.Module:
    """A TorchScript program inside the network, which TorchScript itself could not hold."""
    net = Net(*parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Identity()))
    net.changes = (*net.changes, inner)
    return net


def talking(*parts: Change) -> nn.Module:
    print("building")
    return Net(*parts)


def exits(*parts: Change) -> nn.Module:
    sys.exit("usage: net [-h]")


BUILDS: Mapping[str, Callable[..., Any]] = {
    "plain": Net,
    "silent train": SilentTrain,
    "scripted": scripted,
    "nested": lambda *parts: Loose(Net(*parts)),
    "talking": talking,
    "no state": NoState,
    "odd state": OddState,
    "training": Training,
    "exits": exits,
    "class": lambda *parts: Net,
    "nothing": lambda *parts: None,
    "wordless": lambda *parts: fail(Wordless())(torch.zeros(1)),
    "stop": lambda *parts: fail(StopIteration())(torch.zeros(1)),
}


def build(how: str, layout: str, look: str, end: str, temper: str) -> Any:
    """The model of that name with those parts."""
    return BUILDS[how](LAYOUTS[layout], LOOKS[look], ENDS[end], TEMPERS[temper])
