"""A cheap benchmark whose timings are recorded, so that comparisons can be tested on real timings.

    OMP_NUM_THREADS=1 python tests/bench/comparing/recorded_suite.py 50

measures it in 50 processes, one after the other, and writes `recorded_timings.parquet` beside this file. The timings
there were recorded on two cores that five to ten other processes used.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.bench.suite import Call, Case, Suite

RECORD = Path(__file__).with_name("recorded_timings.parquet")
_WORK = {
    "small sums": lambda x: [x[0] + 1 for _ in range(40)][-1],
    "small products": lambda x: [F.linear(x[:4, :32], x[:32, :32]) for _ in range(20)][-1],
    "softmax": lambda x: x.softmax(-1),
    "matmul": lambda x: x @ x,
    "sort": lambda x: x[:16].sort(-1)[0],
}
CASES = [Case("cheap work", "256×256", quick=True)]


def _inputs(case: Case) -> Tensor:
    return torch.randn(256, 256, generator=torch.Generator().manual_seed(0))


def _check(inputs: Tensor, implementation: str, result: Tensor) -> str:
    return "" if bool(result.isfinite().all()) else "values that are not finite"


SUITE = Suite("recorded", lambda: CASES, _inputs, _check, baseline="small sums", counts_memory=False)


def _declare(name: str) -> None:
    def prepare(inputs: Tensor) -> Call:
        return lambda: _WORK[name](inputs)

    SUITE.implementation(name)(prepare)


for _name in _WORK:
    _declare(_name)


def record(processes: int) -> None:
    """Measure in that many processes, one after the other, and write the records."""
    from trans4init.bench.measuring.rounds import Plan
    from trans4init.bench.measuring.worker import measure_case
    from trans4init.bench.records import records
    from trans4init.reports.machine import capture
    from trans4init.reports.records.store import write_together

    environment, recorded = capture(), []
    for process in range(processes):
        measured = measure_case(Path(__file__), SUITE, CASES[0], list(_WORK), Plan(rounds=60, sample_seconds=0.001))
        recorded += records(SUITE, measured, {}, environment, f"process {process}")
        print(f"process {process + 1} of {processes}", file=sys.stderr, flush=True)
        write_together(recorded, RECORD)


if __name__ == "__main__":
    record(int(sys.argv[1]))
