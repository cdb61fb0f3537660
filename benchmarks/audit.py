"""What the core audit costs beside the sweep that it ends."""

from attacks.pgd import PGD
from benchmarks.measure import OURS, Row
from benchmarks.subject import Subject
from robustbench_aig.audit import cost
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.engine.plan import Settings
from robustbench_aig.registry import register


@register("audit", "the core audit, beside the PGD-20 sweep that it ends")
def run(subject: Subject) -> list[Row]:
    """PGD-20 with every image attacked to the end, at 8/255; the ratio is the audit's time over the sweep's."""
    attack = PGD(steps=20, stop=False)
    settings = Settings([subject.model], subject.dataset, [attack], parse_epsilons(["8/255"]), device=subject.device)
    found = cost.measure(settings)
    note = f"{found.passes:.1%} of the sweep's passes"
    case = f"PGD-20, {len(subject.dataset)} images"
    return [Row("audit", case, OURS, found.audit.seconds, None, "sweep", found.seconds, limit=0.1, note=note)]
