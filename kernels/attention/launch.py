"""Launching the Triton kernels on tensors, compiled on a GPU and interpreted on a CPU.

Triton decides at decoration whether a kernel is compiled or interpreted, by an environment variable read when it is
imported. Here each kernel file is loaded once for each way: both live in one process and nobody sets a variable.
"""

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.ahead_of_time import CODE_OPTIONS
from trans4init.kernels.attention.configurations import INTERPRETED, ROW_TERMS, Case, Pass, Tile, choose

__all__ = ["HEAD_DIMS", "Options", "block_dim", "launch_backward", "launch_forward"]

HEAD_DIMS = (16, 32, 64, 80, 96, 128, 256)
WIDEST = 256  # rows of the largest block, with room to spare


@dataclass(frozen=True)
class Options:
    """What a call asks for beyond its tensors; window None is no window."""

    causal: bool
    window: int | None
    scale: float
    dropout_p: float
    deterministic: bool


def block_dim(head_dim: int) -> int:
    """The width of a tile that holds `head_dim`: the next power of two."""
    return max(16, 1 << (head_dim - 1).bit_length())


@functools.cache
def kernels(interpreted: bool) -> dict[str, Any]:
    """The kernels by name, compiled or interpreted."""
    names = ("kernel", "backward_kernel")
    package = __name__.rpartition(".")[0]
    # Also before interpretation: the copies import from these, which must not be decorated then.
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    if not interpreted:
        return {name: kernel for module in modules for name, kernel in vars(module).items()}
    copies: dict[str, Any] = {}
    with interpretation():
        for name in names:
            copy = _load_copy(f"{package}.interpreted_{name}", Path(__file__).parent / f"{name}.py")
            vars(copy).update({key: value for key, value in copies.items() if key in vars(copy) and key[:2] != "__"})
            copies |= vars(copy)
    return copies


def _load_copy(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def interpretation() -> Iterator[None]:
    """Triton interprets what is decorated and run inside."""
    import triton

    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        yield


def _run(name: str, programs: int, device: torch.device, tile: Tile, arguments: dict[str, Any]) -> None:
    interpreted = device.type == "cpu"
    kernel = kernels(interpreted)[name]
    if interpreted:
        with interpretation():
            kernel[(programs,)](**arguments)
        return
    with torch.cuda.device(device):
        kernel[(programs,)](**arguments, num_warps=tile.warps, num_stages=tile.stages, **CODE_OPTIONS)


@dataclass(frozen=True)
class Inputs:
    """The tensors of a call, with unit stride along the head dimension, and what every kernel is told about them."""

    q: Tensor
    k: Tensor
    v: Tensor
    table: Tensor | None
    key_lengths: Tensor | None
    seed: Tensor | None
    options: Options

    def tile(self, which: Pass) -> Tile:
        """The block sizes of one pass."""
        if self.q.device.type == "cpu":
            return INTERPRETED
        options = self.options
        case = Case(
            which,
            self.q.shape[-1],
            self.q.dtype.itemsize,
            self.table is not None,
            options.causal,
            grouped=which == "key_gradient" and self.q.shape[1] != self.k.shape[1],
            masked=options.window is not None or options.dropout_p > 0 or self.key_lengths is not None,
        )
        return choose(case, self.q.device)

    def arguments(self) -> dict[str, Any]:
        """What the kernels that touch scores have in common."""
        q, k, v, options = self.q, self.k, self.v, self.options
        batch, heads, queries, head_dim = q.shape
        members = 1 if self.table is None else self.table.shape[0]
        seeds = 1 if self.seed is None else self.seed.shape[0]
        keep = 1 - options.dropout_p
        return {
            "q_ptr": q,
            "k_ptr": k,
            "v_ptr": v,
            "table_ptr": q if self.table is None else self.table,
            "lengths_ptr": q if self.key_lengths is None else self.key_lengths,
            "seed_ptr": q if self.seed is None else self.seed,
            **strides("q", q),
            **strides("k", k),
            **strides("v", v),
            "heads": heads,
            "groups": heads // k.shape[1],
            "queries": queries,
            "keys": k.shape[2],
            "table_batches": batch // members,
            "seed_batches": batch // seeds,
            "window": options.window or 0,
            "scale": options.scale,
            "threshold": round(options.dropout_p * 2**24),
            "keep_scale": 1 / keep if keep else 0.0,
            "HEAD_DIM": head_dim,
            "BLOCK_D": block_dim(head_dim),
            "CAUSAL": options.causal,
            "WINDOW": options.window is not None,
            "LENGTHS": self.key_lengths is not None,
            "DROPOUT": options.dropout_p > 0,
            "UPCAST": q.device.type == "cpu" and q.dtype == torch.bfloat16,
        }


def strides(name: str, tensor: Tensor) -> dict[str, int]:
    """A tensor's batch, head and row strides under the names that kernels give them."""
    return {f"{name}_{axis}": tensor.stride(place) for place, axis in enumerate(("batch", "head", "row"))}


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where its head dimension is contiguous, else a contiguous copy.

    Also a copy where rows lie so far apart that a block of them spans 2³¹ entries: within a block, offsets are 32 bits.
    """
    return tensor if tensor.stride(-1) == 1 and tensor.stride(-2) < 2**31 // WIDEST else tensor.contiguous()


def _inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    key_lengths: Tensor | None,
    seed: Tensor | None,
    options: Options,
) -> Inputs:
    q, k, v = dense_rows(q), dense_rows(k), dense_rows(v)
    table, key_lengths, seed = (
        None if tensor is None else tensor.contiguous() for tensor in (table, key_lengths, seed)
    )
    return Inputs(q, k, v, table, key_lengths, seed, options)


def launch_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    key_lengths: Tensor | None,
    seed: Tensor | None,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """q [B, H, Lq, D]; k, v [B, Hkv, Lk, D]; table [M, H, Lq + Lk - 1] and seed [S] -> out, float32 lse [B, H, Lq].

    M tables and S seeds serve B/M and B/S consecutive batch entries each.
    """
    if options.scale < 0:  # the kernel takes the largest product for the largest score
        q, options = -q, replace(options, scale=-options.scale)
    inputs = _inputs(q, k, v, table, key_lengths, seed, options)
    batch, heads, queries, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    tile = inputs.tile("forward")
    arguments = inputs.arguments() | strides("out", out)
    arguments |= {"out_ptr": out, "lse_ptr": lse, "BIAS": table is not None}
    arguments |= {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys}
    _run("forward_kernel", batch * heads * -(-queries // tile.queries), q.device, tile, arguments)
    return out, lse


def launch_backward(
    out_grad: Tensor,
    lse_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    key_lengths: Tensor | None,
    seed: Tensor | None,
    options: Options,
    table_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v and, float32, of the table (empty unless it is needed), from those of out and lse."""
    inputs = _inputs(q, k, v, table, key_lengths, seed, options)
    out_grad, out = dense_rows(out_grad), dense_rows(out)
    batch, heads, queries, head_dim = q.shape
    key_heads, keys = k.shape[1:3]
    delta, level = torch.empty_like(lse), torch.empty_like(lse)
    rows = ROW_TERMS.queries
    _run(
        "row_terms_kernel",
        batch * heads * -(-queries // rows),
        q.device,
        ROW_TERMS,
        {"out_ptr": out, "out_grad_ptr": out_grad, "lse_ptr": lse, "lse_grad_ptr": lse_grad.contiguous()}
        | {"delta_ptr": delta, "level_ptr": level}
        | strides("out", out)
        | strides("grad", out_grad)
        | {"heads": heads, "queries": queries, "HEAD_DIM": head_dim, "BLOCK_D": block_dim(head_dim)}
        | {"BLOCK_M": rows},
    )
    shared = inputs.arguments() | strides("grad", out_grad)
    shared |= {"out_grad_ptr": out_grad, "level_ptr": level, "delta_ptr": delta}

    q_grad, k_grad, v_grad = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    table_grad = torch.zeros(table.shape if table is not None and table_needs_grad else (0,), device=q.device)
    fused = table_needs_grad and not options.deterministic

    tile = inputs.tile("query_gradient")
    blocks = {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys, "BIAS": table is not None, "TABLE": fused}
    arguments = shared | strides("q_grad", q_grad) | {"q_grad_ptr": q_grad, "table_grad_ptr": table_grad} | blocks
    _run("query_gradient_kernel", batch * heads * -(-queries // tile.queries), q.device, tile, arguments)

    tile = inputs.tile("key_gradient")
    blocks = {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys, "BIAS": table is not None}
    blocks |= {"GROUPED": heads != key_heads}
    arguments = shared | strides("k_grad", k_grad) | {"k_grad_ptr": k_grad, "v_grad_ptr": v_grad} | blocks
    _run("key_gradient_kernel", batch * key_heads * -(-keys // tile.keys), q.device, tile, arguments)

    if table is not None and table_needs_grad and options.deterministic:
        tile = inputs.tile("table_gradient")
        diagonals = -(-queries // tile.queries) - (-keys // tile.queries) - 1
        arguments = shared | {"table_grad_ptr": table_grad, "BLOCK": tile.queries}
        _run("table_gradient_kernel", table.shape[0] * heads * diagonals, q.device, tile, arguments)
    return q_grad, k_grad, v_grad, table_grad
