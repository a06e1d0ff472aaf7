"""`python -m trans4init.kernels.polyline.aot_table TABLE`: compile what is shipped and write what each takes.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from trans4init.kernels.ahead_of_time import Job, Usage, compile_job, usage_of, write_table
from trans4init.kernels.polyline.launch import WARPS, constants_of

__all__ = ["SOURCES", "Variant", "job_of", "main", "measure", "shipped"]

SOURCES = [Path(__file__).with_name("kernel.py")]
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Variant:
    """One specialisation of the kernel for one GPU."""

    target: str
    backward: bool
    dtype: str
    pieces: int

    def __str__(self) -> str:
        """The name of its row."""
        return f"{self.target} {'backward' if self.backward else 'forward'} {self.dtype} {self.pieces} lines"


def shipped() -> dict[str, Variant]:
    """Value and gradient for each GPU and precision, with few and with many lines."""
    made = itertools.starmap(Variant, itertools.product(TARGETS, (False, True), ("fp32", "bf16"), (8, 16, 256)))
    return {str(variant): variant for variant in made}


def job_of(variant: Variant) -> Job:
    """What to compile, with the arguments as launched for aligned tensors of a multiple of 16 numbers."""
    from trans4init.kernels.polyline.kernel import polyline_kernel

    table = dict.fromkeys(("kinks", "lines"), "*fp32")
    given = dict.fromkeys(("inputs", "upstream", "out"), f"*{variant.dtype}")
    types = table | given | {"count": "i32"}
    constants = constants_of(variant.pieces, slope=variant.backward)
    aligned = [*table, *given, "count"]
    return Job(variant.target, polyline_kernel, types, constants, aligned, WARPS, stages=1)


def measure(name: str) -> Usage:
    """What the variant of that name takes."""
    return usage_of(compile_job(job_of(shipped()[name])))


def main() -> None:
    """Compile everything that is shipped and write the table to the path that is given."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m trans4init.kernels.polyline.aot_table TABLE, the JSON file to write.")
    write_table(list(shipped()), measure, SOURCES, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
