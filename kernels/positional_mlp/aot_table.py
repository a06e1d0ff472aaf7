"""Compile the positional MLP's kernels for GPUs that need not be there, and write a table of what each one uses.

`python -m trans4init.kernels.positional_mlp.aot_table TABLE` writes the table; `--usage NAME` prints what the kernels
use whose names begin with NAME, `--sass NAME` the instructions of their loops.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review. For each GPU,
forward and backward, it holds each activation and each kind of features, at widths from 16 to 256 and 1 to 1024
outputs, alternately in float32 and bfloat16 (float16 compiles as bfloat16 does). In both dtypes it holds three hidden
layers, and on sm_90 smaller and larger nets too, with everything switched on: sines and cosines, `add_to`, trained
frequencies.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from trans4init.kernels.ahead_of_time import Job, Usage, compile_job, run_command, usage_of
from trans4init.kernels.positional_mlp.launch import BACKWARD_REGISTERS, KERNELS, Tiling, constants_of, tiling
from trans4init.kernels.positional_mlp.reference import ACTIVATIONS, FEATURES

__all__ = ["SOURCES", "Variant", "build", "job_of", "measure", "shipped"]

SOURCES = KERNELS.paths
TARGETS = ("sm_90", "sm_80", "sm_100", "gfx942")
DTYPES = ("fp32", "bf16")
DEEP = (128, 128, 128)
HIDDEN = ((32,), (128,), DEEP, (256, 256, 256))
NETS = (((16,), 1, 1), ((48, 20), 32, 64), ((64, 64), 16, 16), ((128, 128), 1, 1), ((256,), 32, 1024))
"""Hidden widths, frequencies and outputs of the nets that the activations are compiled with, one net each."""


@dataclass(frozen=True)
class Variant:
    """Describes a kernel for one GPU. plain: without add_to, or without a gradient of the frequencies."""

    target: str
    backward: bool
    dtype: str
    hidden: tuple[int, ...]
    outputs: int = 64
    frequencies: int = 32
    features: str = "fourier"
    activation: str = "gelu"
    precision: str = "tf32x3"
    plain: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Frequencies, hidden widths and outputs."""
        return (self.frequencies, *self.hidden, self.outputs)

    @property
    def tiles(self) -> Tiling:
        """The tiles that the launcher chooses."""
        return tiling(self.widths, 4 if self.dtype == "fp32" else 2, backward=self.backward)

    def __str__(self) -> str:
        """Return the name of its row: GPU, pass, dtype, products in float32, widths, features, activation and tiles."""
        kernel = "backward" if self.backward else "forward"
        products = [self.precision] if self.dtype == "fp32" else []
        widths = "-".join(map(str, self.widths))
        tiles = "x".join(map(str, (*self.tiles.constants.values(), self.tiles.warps)))
        traits = [self.features, self.activation, *(["plain"] if self.plain else [])]
        return " ".join([self.target, kernel, self.dtype, *products, widths, *traits, tiles])


def shipped() -> dict[str, Variant]:
    """Return the table's variants by name; the module's docstring says which they are."""
    return {str(variant): variant for variant in _variants()}


def _variants() -> Iterator[Variant]:
    for target, backward in itertools.product(TARGETS, (False, True)):
        single = "ieee" if target == "gfx942" else "tf32x3"
        nets = zip(ACTIVATIONS, itertools.cycle(FEATURES), NETS, itertools.cycle(DTYPES), strict=False)
        for activation, features, (hidden, frequencies, outputs), dtype in nets:
            net = Variant(target, backward, dtype, hidden, outputs, frequencies, features, activation, single)
            yield replace(net, plain=True)
        for dtype, hidden in itertools.product(DTYPES, HIDDEN if target == "sm_90" else (DEEP,)):
            yield Variant(target, backward, dtype, hidden, precision=single)
    for backward in (False, True):
        deep = Variant("sm_90", backward, "fp32", DEEP)
        yield replace(deep, frequencies=1, outputs=1)
        yield replace(deep, precision="tf32")
        yield replace(deep, hidden=(48, 20))


def job_of(variant: Variant) -> Job:
    """Return what to compile, with arguments as the launcher passes them for aligned tensors."""
    kernel = KERNELS.kernels(interpreted=False)["backward_kernel" if variant.backward else "forward_kernel"]
    tiles = variant.tiles
    constants = constants_of(variant.widths, variant.features, variant.activation, tiles)
    constants |= {"PRECISION": variant.precision if variant.dtype == "fp32" else "ieee"}
    constants |= {"ADD": not variant.plain, "TRAIN_FREQUENCIES": not variant.plain}
    constants |= {"IN_REGISTERS": max(variant.hidden) <= tiles.chunk}
    single = dict.fromkeys(("positions", "frequencies", "partials", "workspace"), "*fp32")
    pointers = single | dict.fromkeys(("parameters", "add_to", "out", "upstream"), f"*{variant.dtype}")
    types = {name: pointers.get(name, "i32") for name in kernel.arg_names}
    aligned = [name for name in types if name in pointers]
    registers = BACKWARD_REGISTERS if variant.backward else None
    return Job(variant.target, kernel, types, constants, aligned, tiles.warps, stages=1, registers=registers)


def build(name: str) -> Any:
    """Compile the variant of that name."""
    return compile_job(job_of(shipped()[name]))


def measure(name: str) -> Usage:
    """Compile the variant of that name and return what it uses."""
    return usage_of(build(name))


if __name__ == "__main__":
    run_command("trans4init.kernels.positional_mlp.aot_table", shipped(), build, measure, SOURCES)
