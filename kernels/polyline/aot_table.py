"""Compile the polyline's kernel for GPUs that need not be there, and write a table of what each variant uses.

`python -m trans4init.kernels.polyline.aot_table TABLE` writes the table; `--usage NAME` prints what the variants use
whose names begin with NAME, `--sass NAME` the instructions of their loops.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from trans4init.kernels.ahead_of_time import Job, Usage, compile_job, run_command, usage_of
from trans4init.kernels.polyline.launch import KERNELS, WARPS, constants_of

__all__ = ["SOURCES", "Variant", "build", "job_of", "measure", "shipped"]

SOURCES = KERNELS.paths
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Variant:
    """Describes one specialisation of the kernel for one GPU."""

    target: str
    backward: bool
    dtype: str
    pieces: int

    def __str__(self) -> str:
        """Return the name of its row: GPU, pass, dtype and lines."""
        return f"{self.target} {'backward' if self.backward else 'forward'} {self.dtype} {self.pieces} lines"


def shipped() -> dict[str, Variant]:
    """Return the table's variants by name: value and gradient for each GPU and dtype, with few and with many lines."""
    variants = itertools.starmap(Variant, itertools.product(TARGETS, (False, True), ("fp32", "bf16"), (8, 16, 256)))
    return {str(variant): variant for variant in variants}


def job_of(variant: Variant) -> Job:
    """Return what to compile, with arguments as the launcher passes them for aligned tensors of 16 n inputs."""
    kernel = KERNELS.kernels(interpreted=False)["polyline_kernel"]
    pointers = dict.fromkeys(("kinks", "lines"), "*fp32")
    pointers |= dict.fromkeys(("inputs", "upstream", "out"), f"*{variant.dtype}")
    types = pointers | {"count": "i32"}
    constants = constants_of(variant.pieces, slope=variant.backward)
    return Job(variant.target, kernel, types, constants, list(types), WARPS, stages=1)


def build(name: str) -> Any:
    """Compile the variant of that name."""
    return compile_job(job_of(shipped()[name]))


def measure(name: str) -> Usage:
    """Compile the variant of that name and return what it uses."""
    return usage_of(build(name))


if __name__ == "__main__":
    run_command("trans4init.kernels.polyline.aot_table", shipped(), build, measure, SOURCES)
