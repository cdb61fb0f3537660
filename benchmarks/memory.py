"""Peak memory of a sweep over all images, beside a tenth of them: each in a process of its own."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attacks.fgsm import FGSM
from benchmarks.measure import Row
from benchmarks.memory_peak import high_water
from benchmarks.subject import Subject
from robustbench_aig.contracts.epsilons import parse_epsilons
from robustbench_aig.contracts.gating import Gating
from robustbench_aig.data import load_dataset
from robustbench_aig.device import resolve_device
from robustbench_aig.engine.plan import Settings
from robustbench_aig.engine.sweep import sweep
from robustbench_aig.errors import Prerequisite
from robustbench_aig.models.resolve import load_model
from robustbench_aig.registry import register

MOST = 10_000
LIMIT = 1.1


@register("memory", "peak memory of a sweep over all images, beside a tenth of them")
def run(subject: Subject) -> list[Row]:
    """FGSM at two epsilons with ten scoring draws of stochastic gates; the ratio is of peak resident memory.

    The images are those of the data set, up to 10,000, however many the other benchmarks take.

    Raises:
        Prerequisite: the system does not tell a process's peak.
    """
    if high_water() is None:
        raise Prerequisite("the benchmark 'memory' reads /proc/self/status; run it on Linux.")
    whole = min(MOST, len(load_dataset(subject.data, data_dir=subject.data_dir)))
    rows: list[Row] = []
    for size in (whole // 10, whole):
        asked = json.dumps([subject.gated_name, subject.data, str(subject.data_dir or ""), size, str(subject.device)])
        command = [
            sys.executable,
            "-c",
            "import sys; from benchmarks.memory import child; child(*sys.argv[1:])",
        ]
        started = time.perf_counter()
        done = subprocess.run([*command, asked], stdout=subprocess.PIPE, text=True, check=True)
        took, peak = time.perf_counter() - started, float(done.stdout)
        base = rows[0].peak_mib if rows else None
        rows.append(
            Row(
                "memory",
                "FGSM, 2 epsilons, 10 draws",
                f"{size} images",
                took,
                None,
                f"{whole // 10} images",
                peak / (base or peak),
                limit=LIMIT if rows else None,
                peak_mib=peak,
                note="ratio of the peaks of two processes",
            )
        )
    return rows


def child(asked: str) -> None:
    """Sweep as the JSON says, and print this process's peak in MiB."""
    model, data, data_dir, size, device_name = json.loads(asked)
    device = resolve_device(device_name)
    settings = Settings(
        [load_model(model, device)],
        load_dataset(data, data_dir=Path(data_dir) if data_dir else None, limit=size),
        [FGSM()],
        parse_epsilons(["4/255,8/255"]),
        gatings=(Gating("stochastic"),),
        attackers=("static",),
        device=device,
    )
    with tempfile.TemporaryDirectory() as folder:
        sweep(settings, Path(folder) / "run")
    print(high_water())
