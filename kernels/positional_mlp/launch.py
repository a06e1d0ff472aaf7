"""Launch the Triton kernels of the positional MLP: tile sizes, packed parameters, workspaces.

Here positions are [G or 1, N], frequencies [G or 1, F], `add_to` [G, B, N, out], and the weights and biases of a net
are one row of `parameters` [G, P].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.interpretation import KernelFiles

__all__ = [
    "BACKWARD_REGISTERS",
    "KERNELS",
    "MAX_OUTPUTS",
    "MAX_WIDTH",
    "Tiling",
    "constants_of",
    "empty_result",
    "launch_backward",
    "launch_forward",
    "packed_size",
    "tiling",
]

KERNELS = KernelFiles("trans4init.kernels.positional_mlp", ("functions", "kernel", "backward_kernel"))

MAX_WIDTH = 256
MAX_OUTPUTS = 1024
"""The widest hidden layer and the most outputs that the kernels are compiled and tested for; `triton_refusal` refuses
more, and `aot_table.py` shows what these take."""
BACKWARD_REGISTERS = 255
"""Registers that a thread of the backward kernel may use: the most that a thread can have. NVIDIA's assembler may
otherwise stop at 168, to fit a third program on a multiprocessor, and spill."""
PROGRAMS = 1024
"""How many programs a launch aims at: several for each multiprocessor of the largest GPU. It is a constant, so that
sums are taken in the same order on every GPU; a larger one shortens each program's loop and adds partial sums."""


@dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles of a kernel, and the warps of a program; the names are those of the kernel's constants."""

    rows: int
    tall: int
    chunk: int
    columns: int
    warps: int

    @property
    def constants(self) -> dict[str, int]:
        """The tile sizes as the kernel's constants."""
        return {"ROWS": self.rows, "TALL": self.tall, "CHUNK": self.chunk, "COLUMNS": self.columns}


def tiling(widths: Sequence[int], itemsize: int, *, backward: bool) -> Tiling:
    """Return the tiling for `widths` (frequencies, hidden, outputs) and parameters of `itemsize` bytes; see README."""

    def fitting(size: int, largest: int) -> int:
        return max(16, min(largest, 1 << (size - 1).bit_length()))

    *hidden, outputs = widths[1:]
    widest, half = max(hidden), itemsize < 4
    if backward:
        return Tiling(
            rows=32 if half else 16,
            tall=16,
            chunk=fitting(widest, 32),
            columns=32 if widest > 64 else fitting(outputs, 32),
            warps=4,
        )
    full = 32 < widest <= 64  # a whole hidden layer of the widest tile in registers leaves less room for others
    # Several such layers don't compile for sm_100 in 64 rows of half precision (Triton 3.9, TritonGPUHoistTMEMAlloc).
    return Tiling(
        rows=32 if full and not (half and len(hidden) == 1) else 64,
        tall=16,
        chunk=fitting(widest, 32 if half and widest > 64 else 64),
        columns=fitting(outputs, 32 if full and half else 64),
        warps=4,
    )


def packed_size(widths: Sequence[int], features: str) -> int:
    """Return P, the values in a net's row of parameters; widths: frequencies, hidden, outputs."""
    inputs = widths[0] * (2 if features == "fourier" else 1)
    return sum((i + 1) * o for i, o in pairwise([inputs, *widths[1:]]))


def constants_of(widths: Sequence[int], features: str, activation: str, tiles: Tiling) -> dict[str, Any]:
    """Return the kernels' constants that follow from the net; widths: frequencies, hidden, outputs."""
    frequencies, *hidden, outputs = widths
    first, second, third = (*hidden, 0, 0)[:3]
    return {
        "P": packed_size(widths, features),
        "F": frequencies,
        "W1": first,
        "W2": second,
        "W3": third,
        "OUT": outputs,
        "FEATURES": features,
        "ACTIVATION": activation,
        **tiles.constants,
    }


def empty_result(positions: Tensor, parameters: Tensor, add_to: Tensor | None, widths: Sequence[int]) -> Tensor:
    """Return uninitialised memory for the result: [G, B, N, out] as `add_to`, or [G, 1, N, out] without it."""
    if add_to is not None:
        return torch.empty_like(add_to, memory_format=torch.contiguous_format)
    return parameters.new_empty(parameters.shape[0], 1, positions.shape[1], widths[-1])


def launch_forward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    widths: Sequence[int],
    features: str,
    activation: str,
) -> Tensor:
    """Return the nets' values, added to each batch entry of `add_to` where there is one: [G, B or 1, N, out]."""
    positions, frequencies, parameters = positions.contiguous(), frequencies.contiguous(), parameters.contiguous()
    add_to = None if add_to is None else add_to.contiguous()
    out = empty_result(positions, parameters, add_to, widths)
    nets, batch, count, _ = out.shape
    tiles = tiling(widths, parameters.itemsize, backward=False)
    programs = nets * -(-count // tiles.rows)
    splits = min(batch, max(1, PROGRAMS // programs))
    per_program = -(-batch // splits)
    splits = -(-batch // per_program)
    in_registers = max(widths[1:-1]) <= tiles.chunk
    size = 0 if in_registers else _workspace_size(widths[1:-1], tiles)
    arguments = {
        "positions": positions,
        "frequencies": frequencies,
        "parameters": parameters,
        "add_to": out if add_to is None else add_to,
        "out": out,
        "workspace": positions.new_empty(max(1, splits * programs * size), dtype=torch.float32),
        "N": count,
        "B": batch,
        "batch_per_program": per_program,
        "positions_stride": _stride(positions),
        "frequencies_stride": _stride(frequencies),
        "workspace_stride": size,
        "ADD": add_to is not None,
        "IN_REGISTERS": in_registers,
        "PRECISION": _precision(parameters.dtype),
        **constants_of(widths, features, activation, tiles),
    }
    KERNELS.launch("forward_kernel", (programs, splits), parameters.device, arguments, warps=tiles.warps, stages=1)
    return out


def launch_backward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    widths: Sequence[int],
    features: str,
    activation: str,
    train_frequencies: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of parameters [G, P] and of each net's frequencies [G, F], zeros unless they are trained.

    upstream: the gradient of the nets' values, [G, N, out].
    """
    positions, frequencies, parameters = positions.contiguous(), frequencies.contiguous(), parameters.contiguous()
    upstream = upstream.contiguous()
    nets, count, _ = upstream.shape
    tiles = tiling(widths, parameters.itemsize, backward=True)
    blocks = -(-count // tiles.rows)
    per_program = -(-blocks // min(blocks, max(1, PROGRAMS // nets)))
    splits = -(-blocks // per_program)
    size = _workspace_size(widths[1:-1], tiles)
    packed = parameters.shape[1]
    partials = positions.new_empty(splits, nets, packed + widths[0], dtype=torch.float32)
    arguments = {
        "positions": positions,
        "frequencies": frequencies,
        "parameters": parameters,
        "upstream": upstream,
        "partials": partials,
        "workspace": positions.new_empty(splits * nets * size, dtype=torch.float32),
        "N": count,
        "G": nets,
        "blocks_per_program": per_program,
        "positions_stride": _stride(positions),
        "frequencies_stride": _stride(frequencies),
        "workspace_stride": size,
        "TRAIN_FREQUENCIES": train_frequencies,
        "PRECISION": _precision(parameters.dtype),
        **constants_of(widths, features, activation, tiles),
    }
    registers = {} if torch.version.hip else {"maxnreg": BACKWARD_REGISTERS}
    KERNELS.launch(
        "backward_kernel", (splits * nets,), parameters.device, arguments, warps=tiles.warps, stages=1, **registers
    )
    of_parameters = partials[..., :packed].sum(0).to(parameters.dtype)
    return of_parameters, partials[..., packed:].sum(0) if train_frequencies else partials.new_zeros(nets, widths[0])


def _precision(dtype: torch.dtype) -> str:
    """Return how the kernels multiply float32.

    "tf32" where PyTorch's own products may use it (precision "high"), else "tf32x3", three products that keep float32.
    "ieee" for other dtypes, and on AMD, whose matrix units multiply float32 as it is.
    """
    if dtype != torch.float32 or torch.version.hip:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _workspace_size(hidden: Sequence[int], tiles: Tiling) -> int:
    return sum(-(-width // tiles.chunk) for width in hidden) * tiles.rows * tiles.chunk


def _stride(rows: Tensor) -> int:
    """Return the step from one net's row to the next; 0 where all nets share one row."""
    return 0 if rows.shape[0] == 1 else rows.stride(0)
