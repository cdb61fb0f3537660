"""What a run folder records of where its numbers come from."""

from typing import Any

from robustbench_aig.engine.plan import Settings
from robustbench_aig.provenance import environment


def provenance(settings: Settings) -> dict[str, Any]:
    """Everything recorded about a sweep that does not enter identities."""
    return {
        **environment(settings.device),
        "models": {
            model.name: {"architecture": model.architecture, "weights": model.weights_hash} for model in settings.models
        },
        "dataset": {
            "name": settings.dataset.name,
            "split": settings.dataset.split,
            "images": len(settings.dataset),
            "index": settings.dataset.index_hash,
            "content": settings.dataset.content_hash,
        },
        "defenses": {defense.label: defense.record() for defense in settings.defenses if not defense.nothing},
    }
