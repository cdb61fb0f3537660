"""The rows of ``gates.csv``."""

from collections.abc import Sequence

import pandas as pd
import torch

from robustbench_aig.contracts.forward import Draws, shown
from robustbench_aig.contracts.network import costs_of, is_dynamic
from robustbench_aig.contracts.scores import Scores
from robustbench_aig.engine.plan import Cell
from robustbench_aig.engine.rows import Outcome
from robustbench_aig.gates.gate_metrics import GateMetrics


def table(cell: Cell, clean: Scores, judged: Sequence[tuple[str, Outcome]]) -> pd.DataFrame | None:
    """The cell's rows of ``gates.csv``, one per attacker (or path of it), epsilon and measure; None without gates.

    Args:
        cell: an attacked cell.
        clean: the scores of the clean images.
        judged: attackers and what they did.
    """
    network, layout = cell.model.network, cell.model.layout
    if layout is None:
        return None
    assert is_dynamic(network)
    labels = cell.dataset.labels.numpy()
    # A defence may enlarge what the model sees, and with it floor and ceiling.
    draws = Draws(cell.seed, "score", cell.dataset.ids[:1], [0])
    seen = shown(cell.defense, cell.dataset.images(torch.arange(1)), draws)
    price = costs_of(network, tuple(seen.shape[1:]))
    metrics = GateMetrics(clean, labels, len(cell.dataset.classes), price, layout, seed=cell.seed)
    keys = {name: value for name, value in cell.columns.items() if name != "dataset"}
    rows = [
        {
            **keys,
            "attacker": attacker,
            "eps": outcome.epsilon.value,
            "eps_label": outcome.epsilon.label,
            "seed": cell.seed,
            "measure": name,
            **measure._asdict(),
            "cell": cell.id,
        }
        for attacker, outcome in judged
        for name, measure in metrics.of(outcome.scores, outcome.crossed).items()
    ]
    return pd.DataFrame(rows)
