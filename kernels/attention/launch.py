"""Launch the Triton kernels of attention on tensors: tiles, arguments, and the order of the backward pass.

B batch, H query heads, Hkv key heads, Lq queries, Lk keys, D head dimension; M tables and S dropout seeds serve B/M and
B/S consecutive batch entries each.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.attention.configurations import INTERPRETED, ROW_TERMS, Case, Pass, Tile, choose
from trans4init.kernels.attention.reference import Options
from trans4init.kernels.interpretation import KernelFiles

__all__ = ["HEAD_DIMS", "KERNELS", "Choose", "Inputs", "block_dim", "launch_backward", "launch_forward"]

KERNELS = KernelFiles("trans4init.kernels.attention", ("kernel", "backward_kernel"))

HEAD_DIMS = (16, 32, 64, 80, 96, 128, 256)
"""The head dimensions that the kernels are compiled and tested for; `refusals` refuses others."""
WIDEST = 256
"""An upper bound on the rows of a block, with room to spare: `dense_rows` checks with it that offsets fit 32 bits."""

Choose = Callable[[Case, torch.device], Tile]


def block_dim(head_dim: int) -> int:
    """Return the width of a tile that holds `head_dim`: the next power of two, 16 at least."""
    return max(16, 1 << (head_dim - 1).bit_length())


@dataclass(frozen=True)
class Inputs:
    """Holds what a call is given: q [B, H, Lq, D], k and v [B, Hkv, Lk, D], and its options.

    table: [M, H, Lq + Lk - 1] float32. key_lengths: [B]. query_lengths: [B], beside key lengths alone. seed: [S] int64.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    table: Tensor | None
    key_lengths: Tensor | None
    query_lengths: Tensor | None
    seed: Tensor | None
    options: Options

    def dense(self) -> "Inputs":
        """Return the same inputs with strides that the kernels can read."""
        others = ("table", "key_lengths", "query_lengths", "seed")
        given = {name: tensor.contiguous() for name in others if (tensor := getattr(self, name)) is not None}
        return replace(self, q=dense_rows(self.q), k=dense_rows(self.k), v=dense_rows(self.v), **given)

    def tile(self, which: Pass, choose: Choose) -> Tile:
        """Return the block sizes of one pass; the interpreter has its own."""
        if self.q.device.type == "cpu":
            return INTERPRETED
        options = self.options
        case = Case(
            which,
            self.q.shape[-1],
            self.q.dtype.itemsize,
            self.table is not None,
            options.right is not None,
            grouped=which == "key_gradient" and self.q.shape[1] != self.k.shape[1],
            masked=options.left is not None
            or options.dropout_p > 0
            or options.softcap is not None
            or self.key_lengths is not None,
        )
        return choose(case, self.q.device)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that all kernels which compute scores have in common."""
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
            "query_lengths_ptr": next(t for t in (self.query_lengths, self.key_lengths, q) if t is not None),
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
            "aligned": int(self.query_lengths is not None),
            "left": options.left or 0,
            "right": options.right or 0,
            "scale": options.scale,
            "softcap": options.softcap or 0.0,
            "threshold": round(options.dropout_p * 2**24),
            "keep_scale": 1 / keep if keep else 0.0,
            "HEAD_DIM": head_dim,
            "BLOCK_D": block_dim(head_dim),
            "LEFT": options.left is not None,
            "RIGHT": options.right is not None,
            "SOFTCAP": options.softcap is not None,
            "LENGTHS": self.key_lengths is not None,
            "DROPOUT": options.dropout_p > 0,
            "UPCAST": q.device.type == "cpu" and q.dtype == torch.bfloat16,
        }


def strides(name: str, tensor: Tensor) -> dict[str, int]:
    """Return a tensor's batch, head and row strides under the names that the kernels give them."""
    return {f"{name}_{axis}": tensor.stride(place) for place, axis in enumerate(("batch", "head", "row"))}


def dense_rows(tensor: Tensor) -> Tensor:
    """Return the tensor itself where its head dimension is contiguous, else a contiguous copy.

    Rows that lie so far apart that a block of them spans 2³¹ entries are copied too: within a block, offsets are 32
    bits.
    """
    return tensor if tensor.stride(-1) == 1 and tensor.stride(-2) < 2**31 // WIDEST else tensor.contiguous()


def launch_forward(inputs: Inputs, choose: Choose = choose) -> tuple[Tensor, Tensor]:
    """Return out [B, H, Lq, D] and the log-sum-exp of the scores [B, H, Lq], float32."""
    if inputs.options.scale < 0:  # the kernel takes the largest product for the largest score
        inputs = replace(inputs, q=-inputs.q, options=replace(inputs.options, scale=-inputs.options.scale))
    inputs = inputs.dense()
    q = inputs.q
    batch, heads, queries, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    tile = inputs.tile("forward", choose)
    arguments = inputs.arguments() | strides("out", out)
    arguments |= {"out_ptr": out, "lse_ptr": lse, "BIAS": inputs.table is not None}
    arguments |= {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys}
    _launch("forward_kernel", batch * heads * -(-queries // tile.queries), q.device, tile, arguments)
    return out, lse


def launch_backward(
    out_grad: Tensor,
    lse_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    inputs: Inputs,
    table_needs_grad: bool,
    choose: Choose = choose,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and, float32, of the table (empty unless it is needed)."""
    inputs = inputs.dense()
    q, k, v, table, deterministic = inputs.q, inputs.k, inputs.v, inputs.table, inputs.options.deterministic
    out_grad, out = dense_rows(out_grad), dense_rows(out)
    batch, heads, queries, head_dim = q.shape
    key_heads, keys = k.shape[1:3]
    delta, level = torch.empty_like(lse), torch.empty_like(lse)
    rows = ROW_TERMS.queries
    _launch(
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
    table_shape = table.shape if table is not None and table_needs_grad else (0,)
    table_grad = torch.zeros(table_shape, dtype=torch.float32, device=q.device)
    fused = table_needs_grad and not deterministic

    tile = inputs.tile("query_gradient", choose)
    blocks = {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys, "BIAS": table is not None, "TABLE": fused}
    arguments = shared | strides("q_grad", q_grad) | {"q_grad_ptr": q_grad, "table_grad_ptr": table_grad} | blocks
    _launch("query_gradient_kernel", batch * heads * -(-queries // tile.queries), q.device, tile, arguments)

    tile = inputs.tile("key_gradient", choose)
    blocks = {"BLOCK_M": tile.queries, "BLOCK_N": tile.keys, "BIAS": table is not None}
    blocks |= {"GROUPED": heads != key_heads}
    arguments = shared | strides("k_grad", k_grad) | {"k_grad_ptr": k_grad, "v_grad_ptr": v_grad} | blocks
    _launch("key_gradient_kernel", batch * key_heads * -(-keys // tile.keys), q.device, tile, arguments)

    if table is not None and table_needs_grad and deterministic:
        tile = inputs.tile("table_gradient", choose)
        diagonals = -(-queries // tile.queries) - (-keys // tile.queries) - 1
        arguments = shared | {"table_grad_ptr": table_grad, "BLOCK": tile.queries}
        _launch("table_gradient_kernel", table.shape[0] * heads * diagonals, q.device, tile, arguments)
    return q_grad, k_grad, v_grad, table_grad


def _launch(name: str, programs: int, device: torch.device, tile: Tile, arguments: dict[str, Any]) -> None:
    KERNELS.launch(name, (programs,), device, arguments, warps=tile.warps, stages=tile.stages)
