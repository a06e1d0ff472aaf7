"""`python -m trans4init.kernels.positional_mlp.compiled TABLE`: compile what is shipped and write what each takes.

The table is a test's fixture, so that a regression of registers, spills or shared memory shows in review.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trans4init.kernels.compilation import Job, Usage, compile_job, usage_of, write_table
from trans4init.kernels.positional_mlp.launch import Tiling, constants_of, tiling
from trans4init.kernels.positional_mlp.reference import ACTIVATIONS, FEATURES

__all__ = ["SOURCES", "Variant", "job_of", "main", "measure", "shipped"]

SOURCES = [Path(__file__).parent / name for name in ("functions.py", "kernel.py", "backward_kernel.py")]
TARGETS = ("sm_80", "sm_90", "sm_100")
HIDDEN = ((32,), (128,), (128, 128, 128), (256, 256, 256))


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel for one GPU; add_to and the gradient of the frequencies are on."""

    target: str
    backward: bool
    dtype: str
    hidden: tuple[int, ...]
    outputs: int = 64
    frequencies: int = 32
    features: str = "fourier"
    activation: str = "gelu"
    precision: str = "tf32x3"

    @property
    def widths(self) -> tuple[int, ...]:
        """Frequencies, hidden, outputs."""
        return (self.frequencies, *self.hidden, self.outputs)

    @property
    def tiles(self) -> Tiling:
        """As the launcher chooses them."""
        return tiling(self.widths, 4 if self.dtype == "fp32" else 2, backward=self.backward)

    def __str__(self) -> str:
        """The name of its row: GPU, pass, dtype, products in float32, widths, features, activation and tiles."""
        kernel = "backward" if self.backward else "forward"
        products = [self.precision] if self.dtype == "fp32" else []
        widths = "-".join(map(str, self.widths))
        tiles = "x".join(map(str, (*self.tiles.constants.values(), self.tiles.warps)))
        return " ".join([self.target, kernel, self.dtype, *products, widths, self.features, self.activation, tiles])


def shipped() -> dict[str, Variant]:
    """Every variant by its name: depths and widths on each GPU; features, activations and outputs on sm_90."""
    return {str(variant): variant for variant in _variants()}


def _variants() -> Iterator[Variant]:
    for target, hidden, dtype, backward in itertools.product(TARGETS, HIDDEN, ("fp32", "bf16"), (False, True)):
        yield Variant(target, backward, dtype, hidden)
    for backward in (False, True):
        plain = Variant("sm_90", backward, "fp32", (128, 128, 128))
        yield from (replace(plain, features=features) for features in FEATURES)
        yield from (replace(plain, activation=activation) for activation in ACTIVATIONS)
        yield from (replace(plain, frequencies=f, outputs=o) for f, o in ((1, 1), (32, 1024)))
        yield replace(plain, precision="tf32")
        yield from (replace(plain, hidden=hidden) for hidden in ((16,), (48, 20)))


def job_of(variant: Variant) -> Job:
    """What to compile, with the arguments as the launcher gives them for aligned tensors."""
    from trans4init.kernels.positional_mlp.backward_kernel import backward_kernel
    from trans4init.kernels.positional_mlp.kernel import forward_kernel

    kernel = backward_kernel if variant.backward else forward_kernel
    tiles = variant.tiles
    constants = constants_of(variant.widths, variant.features, variant.activation, tiles)
    constants |= {"PRECISION": variant.precision if variant.dtype == "fp32" else "ieee"}
    constants |= {"ADD": True, "TRAIN_FREQUENCIES": True, "IN_REGISTERS": max(variant.hidden) <= tiles.chunk}
    single = dict.fromkeys(("positions", "frequencies", "partials", "workspace"), "*fp32")
    given = dict.fromkeys(("parameters", "add_to", "out", "upstream"), f"*{variant.dtype}")
    types = {name: (single | given).get(name, "i32") for name in kernel.arg_names}
    aligned = [name for name in types if name in single | given]
    return Job(variant.target, kernel, types, constants, aligned, tiles.warps, stages=1)


def measure(name: str) -> Usage:
    """What the variant of that name takes."""
    return usage_of(compile_job(job_of(shipped()[name])))


def main() -> None:
    """Compile everything that is shipped and write the table to the path that is given."""
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m trans4init.kernels.positional_mlp.compiled TABLE, the JSON file to write.")
    write_table(list(shipped()), measure, SOURCES, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
