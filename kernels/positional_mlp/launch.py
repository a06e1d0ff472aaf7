"""The Triton kernels as PyTorch operators: tiling, launch, autograd, vmap, and what they refuse.

Inside, positions are [G or 1, N], frequencies [G or 1, F], `add_to` [G, B, N, out], and a net's weights and biases one
row of `parameters` [G, P].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.ahead_of_time import CODE_OPTIONS
from trans4init.kernels.availability import DTYPES, dtype_names, machine_refusal, on_device_of
from trans4init.kernels.torch_operators import followed

__all__ = [
    "BACKWARD_REGISTERS",
    "MAX_OUTPUTS",
    "MAX_WIDTH",
    "Tiling",
    "constants_of",
    "packed_size",
    "tiling",
    "triton_positional_mlp",
    "triton_refusal",
]

MAX_WIDTH = 256
MAX_OUTPUTS = 1024
BACKWARD_REGISTERS = 255
"""All that a thread can have. Unless told, NVIDIA's assembler may stop at 168, to fit a third program, and spill."""
PROGRAMS = 1024
"""How many programs a launch aims at: several for each multiprocessor of the largest GPU. A constant, so that sums are
taken in the same order on every GPU."""


@dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles of a kernel, and its warps; the names are the kernel's."""

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
    """The tiling for `widths` (frequencies, hidden, outputs) and the bytes of a parameter; see the README."""

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
    full = 32 < widest <= 64  # a whole hidden layer of the widest tile in registers leaves less room for the others
    # Several such layers don't compile for sm_100 in 64 rows of half precision (Triton 3.9, TritonGPUHoistTMEMAlloc).
    return Tiling(
        rows=32 if full and not (half and len(hidden) == 1) else 64,
        tall=16,
        chunk=fitting(widest, 32 if half and widest > 64 else 64),
        columns=fitting(outputs, 32 if full and half else 64),
        warps=4,
    )


def packed_size(widths: Sequence[int], features: str) -> int:
    """Values in a net's row of parameters; widths: frequencies, hidden, outputs."""
    inputs = widths[0] * (2 if features == "fourier" else 1)
    return sum((i + 1) * o for i, o in pairwise([inputs, *widths[1:]]))


def triton_refusal(
    positions: Tensor, frequencies: Tensor, weights: Sequence[Tensor], add_to: Tensor | None
) -> str | None:
    """Why the kernels can't do a call, in one sentence; None where they can."""
    if (refusal := machine_refusal(positions)) is not None:
        return refusal
    given = [weights[0], *([] if add_to is None else [add_to])]
    if any(tensor.dtype not in DTYPES for tensor in given):
        dtypes = ", ".join(str(tensor.dtype) for tensor in given)
        return f"impl 'triton' takes weights and add_to in {dtype_names()}, and got {dtypes}."
    if torch.promote_types(positions.dtype, frequencies.dtype) not in DTYPES:
        return "impl 'triton' computes features in float32, and positions or frequencies are float64."
    if positions.requires_grad:
        return "impl 'triton' has no gradient to positions, and they require one."
    widest, outputs = max(weight.shape[2] for weight in weights[:-1]), weights[-1].shape[2]
    if widest > MAX_WIDTH or outputs > MAX_OUTPUTS:
        return (
            f"impl 'triton' goes to width {MAX_WIDTH} and {MAX_OUTPUTS} outputs, "
            f"and {widest} and {outputs} were asked for."
        )
    return None


def triton_positional_mlp(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str,
    add_to: Tensor | None,
) -> Tensor:
    """`reference_positional_mlp` in one kernel; `triton_refusal` says what it can't do."""
    layers = [layer.flatten(1) for pair in zip(weights, biases, strict=True) for layer in pair]
    widths = [frequencies.shape[-1], *(weight.shape[2] for weight in weights)]
    out: Tensor = _fused(
        positions[None] if positions.dim() == 1 else positions,
        frequencies[None] if frequencies.dim() == 1 else frequencies,
        torch.cat(layers, dim=1),
        add_to[None] if add_to is not None and add_to.dim() == 3 else add_to,
        widths,
        features,
        activation,
    )
    return out[:, 0] if add_to is None else out.view(add_to.shape)


def constants_of(widths: Sequence[int], features: str, activation: str, tiles: Tiling) -> dict[str, Any]:
    """The kernels' constants that come from the net; widths: frequencies, hidden, outputs."""
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


def _precision(dtype: torch.dtype) -> str:
    """Of the products: "high" lets float32 use TF32, as it does for PyTorch's own; else three of them keep float32.

    AMD's matrix units multiply float32 as it is.
    """
    if dtype != torch.float32 or torch.version.hip:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _workspace_size(hidden: Sequence[int], tiles: Tiling) -> int:
    return sum(-(-width // tiles.chunk) for width in hidden) * tiles.rows * tiles.chunk


def _stride(rows: Tensor) -> int:
    """From one net's row to the next; 0 where all share one."""
    return 0 if rows.shape[0] == 1 else rows.stride(0)


@torch.library.custom_op("trans4init::positional_mlp", mutates_args=())
def _forward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    widths: Sequence[int],
    features: str,
    activation: str,
) -> Tensor:
    from trans4init.kernels.positional_mlp.kernel import forward_kernel

    positions, frequencies, parameters = positions.contiguous(), frequencies.contiguous(), parameters.contiguous()
    add_to = None if add_to is None else add_to.contiguous()
    out = _empty_result(positions, parameters, add_to, widths)
    nets, batch, count, _ = out.shape
    tiles = tiling(widths, parameters.itemsize, backward=False)
    programs = nets * -(-count // tiles.rows)
    splits = min(batch, max(1, PROGRAMS // programs))
    per_program = -(-batch // splits)
    splits = -(-batch // per_program)
    in_registers = max(widths[1:-1]) <= tiles.chunk
    size = 0 if in_registers else _workspace_size(widths[1:-1], tiles)
    workspace = positions.new_empty(max(1, splits * programs * size), dtype=torch.float32)
    with on_device_of(parameters):
        forward_kernel[(programs, splits)](
            positions,
            frequencies,
            parameters,
            out if add_to is None else add_to,
            out,
            workspace,
            count,
            batch,
            per_program,
            _stride(positions),
            _stride(frequencies),
            size,
            ADD=add_to is not None,
            IN_REGISTERS=in_registers,
            num_warps=tiles.warps,
            num_stages=1,
            **CODE_OPTIONS,
            PRECISION=_precision(parameters.dtype),
            **constants_of(widths, features, activation, tiles),
        )
    return out


def _empty_result(positions: Tensor, parameters: Tensor, add_to: Tensor | None, widths: Sequence[int]) -> Tensor:
    if add_to is not None:
        return torch.empty_like(add_to, memory_format=torch.contiguous_format)
    return parameters.new_empty(parameters.shape[0], 1, positions.shape[1], widths[-1])


@_forward.register_fake
def _(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    widths: Sequence[int],
    features: str,
    activation: str,
) -> Tensor:
    return _empty_result(positions, parameters, add_to, widths)


@torch.library.custom_op("trans4init::positional_mlp_backward", mutates_args=())
def _backward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    widths: Sequence[int],
    features: str,
    activation: str,
    train_frequencies: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of parameters [G, P] and, where trained, of each net's frequencies [G, F]; upstream [G, N, out]."""
    from trans4init.kernels.positional_mlp.backward_kernel import backward_kernel

    positions, frequencies, parameters = positions.contiguous(), frequencies.contiguous(), parameters.contiguous()
    upstream = upstream.contiguous()
    nets, count, _ = upstream.shape
    tiles = tiling(widths, parameters.itemsize, backward=True)
    blocks = -(-count // tiles.rows)
    per_program = -(-blocks // min(blocks, max(1, PROGRAMS // nets)))
    splits = -(-blocks // per_program)
    size = _workspace_size(widths[1:-1], tiles)
    own = parameters.shape[1]
    partials = positions.new_empty(splits, nets, own + widths[0], dtype=torch.float32)
    workspace = positions.new_empty(splits * nets * size, dtype=torch.float32)
    with on_device_of(parameters):
        backward_kernel[(splits * nets,)](
            positions,
            frequencies,
            parameters,
            upstream,
            partials,
            workspace,
            count,
            nets,
            per_program,
            _stride(positions),
            _stride(frequencies),
            size,
            TRAIN_FREQUENCIES=train_frequencies,
            num_warps=tiles.warps,
            num_stages=1,
            **CODE_OPTIONS,
            **({} if torch.version.hip else {"maxnreg": BACKWARD_REGISTERS}),
            PRECISION=_precision(parameters.dtype),
            **constants_of(widths, features, activation, tiles),
        )
    of_parameters = partials[..., :own].sum(0).to(parameters.dtype)
    return of_parameters, partials[..., own:].sum(0) if train_frequencies else partials.new_zeros(nets, widths[0])


@_backward.register_fake
def _(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    widths: Sequence[int],
    features: str,
    activation: str,
    train_frequencies: bool,
) -> tuple[Tensor, Tensor]:
    of_frequencies = positions.new_empty(parameters.shape[0], widths[0], dtype=torch.float32)
    return torch.empty_like(parameters, memory_format=torch.contiguous_format), of_frequencies


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    positions, frequencies, parameters, _, widths, features, activation = inputs
    ctx.save_for_backward(positions, frequencies, parameters)
    ctx.net = (widths, features, activation)


def _differentiate(ctx: Any, upstream: Tensor, backward: Callable[..., Any] = _backward) -> tuple[Tensor | None, ...]:
    positions, frequencies, parameters = ctx.saved_tensors
    _, trains_frequencies, trains_parameters, trains_add_to, *_ = ctx.needs_input_grad
    of_frequencies = of_parameters = None
    if trains_frequencies or trains_parameters:
        # The batch entries share one encoding: its gradient is their sum, taken once, in float32 and in a fixed order.
        shared = upstream[:, 0] if upstream.shape[1] == 1 else upstream.sum(1, dtype=torch.float32)
        of_parameters, of_frequencies = backward(
            positions, frequencies, parameters, shared, *ctx.net, trains_frequencies
        )
        if frequencies.shape[0] == 1:
            of_frequencies = of_frequencies.sum(0, keepdim=True)
        of_frequencies = of_frequencies.to(frequencies.dtype) if trains_frequencies else None
    return None, of_frequencies, of_parameters, upstream if trains_add_to else None, None, None, None


def _with_nets(tensor: Tensor, dim: int | None, size: int, nets: int) -> Tensor:
    """Fold vmap's axis into the axis of the nets; what neither has of its own stays shared."""
    if dim is None:
        return tensor if tensor.shape[0] == 1 and nets > 0 else tensor.repeat(size, *[1] * (tensor.dim() - 1))
    moved = tensor.movedim(dim, 0)
    if nets:
        moved = moved.expand(size, nets, *moved.shape[2:])
    return moved.flatten(0, 1)


@_forward.register_vmap
def _(
    info: Any,
    in_dims: tuple[int | None, ...],
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    *net: Any,
) -> tuple[Tensor, int]:
    size, nets = info.batch_size, parameters.shape[0 if in_dims[2] != 0 else 1]
    out: Tensor = _forward(
        _with_nets(positions, in_dims[0], size, nets),
        _with_nets(frequencies, in_dims[1], size, nets),
        _with_nets(parameters, in_dims[2], size, 0),
        None if add_to is None else _with_nets(add_to, in_dims[3], size, 0),
        *net,
    )
    return out.view(size, nets, *out.shape[1:]), 0


@_backward.register_vmap
def _(
    info: Any,
    in_dims: tuple[int | None, ...],
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    *net: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    size, nets = info.batch_size, parameters.shape[0 if in_dims[2] != 0 else 1]
    gradients = _backward(
        _with_nets(positions, in_dims[0], size, nets),
        _with_nets(frequencies, in_dims[1], size, nets),
        _with_nets(parameters, in_dims[2], size, 0),
        _with_nets(upstream, in_dims[3], size, 0),
        *net,
    )
    of_parameters, of_frequencies = (gradient.view(size, nets, -1) for gradient in gradients)
    return (of_parameters, of_frequencies), (0, 0)


_fused = followed(_forward, _backward, _remember, _differentiate, "The fused positional MLP")
