"""Ahead-of-time compilation of the kernels for GPUs that are not there: registers, stack, shared memory."""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trans4init.kernels.positional_mlp.launch import packed_size, tiling

__all__ = ["ARCHITECTURES", "SHIPPED", "Compiled", "Variant", "compile_table", "compile_variant"]

ARCHITECTURES = (80, 90, 100)

_POINTERS = {"positions": "fp32", "frequencies": "fp32", "partials": "fp32", "workspace": "fp32"}


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel; widths: frequencies, hidden, outputs."""

    backward: bool
    dtype: str
    widths: tuple[int, ...]
    features: str = "fourier"
    activation: str = "gelu"
    precision: str = "tf32x3"


SHIPPED = tuple(
    Variant(backward, dtype, widths)
    for dtype, widths in (("fp32", (16, 32, 16)), ("fp32", (32, 128, 128, 128)), ("bf16", (32, 128, 128, 128)))
    for backward in (False, True)
)
"""A narrow net and one of width 128, in float32 with the most exact and most expensive products."""


@dataclass(frozen=True)
class Compiled:
    """What a variant takes on an architecture. Spilled registers lie on the stack, so no stack is no spill."""

    registers: int
    stack: int
    shared: int


def compile_variant(variant: Variant, architecture: int) -> Compiled:
    """Compile for compute capability `architecture` / 10; needs Triton and no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trans4init.kernels.positional_mlp.backward_kernel import backward_kernel
    from trans4init.kernels.positional_mlp.kernel import forward_kernel

    function = backward_kernel if variant.backward else forward_kernel
    itemsize = 4 if variant.dtype == "fp32" else 2
    tiles = tiling(variant.widths, itemsize, backward=variant.backward)
    constants = _constants(variant, tiles.constants)
    pointers = {**_POINTERS, **dict.fromkeys(("parameters", "add_to", "out", "upstream"), variant.dtype)}
    signature = {
        name: "constexpr" if name in constants else f"*{pointers[name]}" if name in pointers else "i32"
        for name in function.arg_names
    }
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(function.arg_names) if name in pointers}
    source = ASTSource(function, signature, {name: constants[name] for name in signature if name in constants}, aligned)
    options = {"num_warps": tiles.warps, "num_stages": 1}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    registers, stack = _usage(compiled.asm["cubin"], Path(triton.__file__).parent)
    return Compiled(registers, stack, compiled.metadata.shared)


def _constants(variant: Variant, tiles: dict[str, int]) -> dict[str, Any]:
    frequencies, *hidden, outputs = variant.widths
    first, second, third = (*hidden, 0, 0)[:3]
    return {
        "P": packed_size(variant.widths, variant.features),
        "F": frequencies,
        "W1": first,
        "W2": second,
        "W3": third,
        "OUT": outputs,
        "FEATURES": variant.features,
        "ACTIVATION": variant.activation,
        "ADD": True,
        "TRAIN_FREQUENCIES": True,
        "IN_REGISTERS": max(hidden) <= tiles["CHUNK"],
        "PRECISION": variant.precision if variant.dtype == "fp32" else "ieee",
        **tiles,
    }


def _usage(binary: bytes, triton_folder: Path) -> tuple[int, int]:
    tool = triton_folder / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {said[:200]!r}")
    return int(found[1]), int(found[2])


def compile_table(variants: Iterable[Variant] = SHIPPED, architectures: Sequence[int] = ARCHITECTURES) -> str:
    """Markdown, a row for each variant, "registers / stack bytes / shared bytes" for each architecture."""
    lines = [
        f"| kernel | dtype | frequencies, hidden, outputs | {' | '.join(f'sm_{a}' for a in architectures)} |",
        f"| --- | --- | --- |{' --- |' * len(architectures)}",
    ]
    for variant in variants:
        found = [compile_variant(variant, architecture) for architecture in architectures]
        cells = " | ".join(f"{c.registers} / {c.stack} / {c.shared}" for c in found)
        name = "backward" if variant.backward else "forward"
        lines.append(f"| {name} | {variant.dtype} | {', '.join(map(str, variant.widths))} | {cells} |")
    return "\n".join(lines)
