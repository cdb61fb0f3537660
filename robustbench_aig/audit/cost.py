"""What the core tier of the audit costs beside the sweep that it ends: in passes, and in seconds."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_aig.audit import audit
from robustbench_aig.engine.plan import Settings, plan
from robustbench_aig.engine.store import RunFolder
from robustbench_aig.engine.sweep import sweep
from robustbench_aig.models.checkpoints import weights_hash

BACKWARD = 2
"""Forward passes that a backward pass is worth."""


@dataclass
class Work:
    """What something cost.

    Attributes:
        forwards: images passed forward.
        backwards: images passed backward.
        seconds: wall time.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    @property
    def passes(self) -> int:
        """In forward passes of one image."""
        return self.forwards + BACKWARD * self.backwards


@dataclass(frozen=True)
class Cost:
    """The audit beside its sweep.

    Attributes:
        sweep: the sweep without an audit.
        audit: the core tier.
    """

    sweep: Work = field(default_factory=Work)
    audit: Work = field(default_factory=Work)

    @property
    def passes(self) -> float:
        """The audit's passes as a share of the sweep's."""
        return self.audit.passes / self.sweep.passes

    @property
    def seconds(self) -> float:
        """The audit's time as a share of the sweep's."""
        return self.audit.seconds / self.sweep.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passes": self.passes, "seconds": self.seconds}


def measure(settings: Settings) -> Cost:
    """Run a sweep without its audit into a folder that is thrown away, then the core audit by itself."""
    networks = [model.network for model in settings.models]
    with tempfile.TemporaryDirectory() as place:
        swept = _watched(networks, lambda: sweep(settings, Path(place)))
        weights = {model.name: weights_hash(model.network) for model in settings.models}
        cells = plan(settings)
        audited = _watched(networks, lambda: audit(RunFolder(Path(place)), cells, settings, "core", weights, 0))
    return Cost(swept, audited)


def _watched(networks: list[nn.Module], work: Callable[[], object]) -> Work:
    spent = Work()
    started = time.perf_counter()
    with _counting(networks, spent):
        work()
    spent.seconds = time.perf_counter() - started
    return spent


@contextmanager
def _counting(networks: list[nn.Module], spent: Work) -> Iterator[None]:
    """Count the images that enter first convolutions, which networks with gates call without their ``forward``.

    A pass of images that want a gradient is followed by a backward one.
    """

    def seen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        spent.forwards += len(inputs[0])
        spent.backwards += len(inputs[0]) * int(torch.is_grad_enabled() and inputs[0].requires_grad)

    entries = [next((part for part in net.modules() if isinstance(part, nn.Conv2d)), net) for net in networks]
    hooks = [entry.register_forward_pre_hook(seen) for entry in entries]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
