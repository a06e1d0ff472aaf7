"""Attend with a relative bias on a CPU, a few queries at a time: PyTorch operations, memory linear in the lengths.

The order of keys and values is reversed once, jj = Lk - 1 - j. Then the table's entry for query i and key jj is i + jj,
the bias of all pairs is the view `table.unfold(-1, Lk, 1)` of the table itself, and what a causal mask or a window
hides is a range of the table as well.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.kernels.attention.reference import Options
from trans4init.kernels.differentiation import in_transformation

__all__ = ["streamed_attention"]

SCORES_AT_ONCE = 2**18
"""How many scores a chunk has over all heads: a MiB of float32, which stays in the cache."""


def streamed_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_lengths: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Return out and log-sum-exp as `reference_attention` does, for options without dropout.

    table [H, Lq + Lk - 1]; key_lengths [B] or None. Sums are float32, or float64 for float64 inputs; autocast has no
    effect.
    """
    attend: Callable[..., tuple[Tensor, Tensor]] = StreamedAttention.apply
    lengths = [] if key_lengths is None else [key_lengths]
    q, k, v, table, *lengths = _batched_alike(q, k, v, table, *lengths)
    with torch.autocast("cpu", enabled=False):
        out, lse = attend(q, k, v, table, lengths[0] if lengths else None, options)
    return out.to(q.dtype), lse


class StreamedAttention(torch.autograd.Function):
    """Compute `streamed_attention`; the backward pass computes the weights again instead of keeping them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        table: Tensor,
        key_lengths: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        """Return out [B, H, Lq, D] and its log-sum-exp [B, H, Lq], both not rounded to q's type.

        The backward pass takes a difference of `out`, whose rounding would be an error of the table's gradient.
        """
        wide = torch.promote_types(q.dtype, torch.float32)
        queries, keys, values, masked = _turned(q, k, v, table, options, wide)
        outs, levels = [], []
        for start, stop, first, last in _chunks(q, k, options):
            scores = _scores(queries, keys, masked, key_lengths, start, stop, first, last)
            peak = scores.amax(dim=-1, keepdim=True)
            peak = peak.masked_fill(peak == -math.inf, 0.0)
            weights = scores.sub_(peak).exp_()
            norm = weights.sum(dim=-1, keepdim=True)
            mixed = _ungrouped(_grouped(weights, v) @ values[:, :, first:last], weights)
            outs.append(mixed / norm.masked_fill(norm == 0, 1.0))
            levels.append((norm.log() + peak).squeeze(-1))
        return torch.cat(outs, dim=2), torch.cat(levels, dim=2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save inputs and outputs, and no weights."""
        *tensors, ctx.options = inputs
        ctx.save_for_backward(*output, *tensors)

    @staticmethod
    def backward(ctx: Any, out_grad: Tensor, lse_grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v and table, computed in the same chunks."""
        with torch.autocast("cpu", enabled=False):
            return _gradients(ctx, out_grad, lse_grad)


def _gradients(ctx: Any, out_grad: Tensor, lse_grad: Tensor) -> tuple[Tensor | None, ...]:
    out, lse, q, k, v, table, key_lengths = ctx.saved_tensors
    _, _, q, k, v, table = _batched_alike(out_grad, lse_grad, q, k, v, table)
    queries, keys, values, masked = _turned(q, k, v, table, ctx.options, lse.dtype)
    delta = (out * out_grad).sum(dim=-1) - lse_grad  # [B, H, Lq]
    level = lse.masked_fill(lse == -math.inf, math.inf)
    q_grads = []
    k_grad, v_grad, table_grad = torch.zeros_like(keys), torch.zeros_like(values), torch.zeros_like(masked)
    for start, stop, first, last in _chunks(q, k, ctx.options):
        scores = _scores(queries, keys, masked, key_lengths, start, stop, first, last)
        weights = scores.sub_(level[:, :, start:stop, None]).exp_()
        grad = _grouped(out_grad[:, :, start:stop], v)
        v_grad[:, :, first:last] += _grouped(weights, v).transpose(-1, -2) @ grad
        scores_grad = _ungrouped(grad @ values[:, :, first:last].transpose(-1, -2), weights)
        scores_grad = scores_grad.sub_(delta[:, :, start:stop, None]).mul_(weights)
        if ctx.needs_input_grad[3]:
            table_grad[:, start + first : stop + last - 1] += _diagonal_sums(scores_grad.sum(dim=0))
        grouped = _grouped(scores_grad, k)
        q_grads.append(_ungrouped(grouped @ keys[:, :, first:last], weights))
        k_grad[:, :, first:last] += grouped.transpose(-1, -2) @ _grouped(queries[:, :, start:stop], k)
    q_grad = (torch.cat(q_grads, dim=2) * ctx.options.scale).to(q.dtype)
    gradients = q_grad, k_grad.flip(2).to(k.dtype), v_grad.flip(2).to(v.dtype), table_grad.to(table.dtype)
    return (*gradients, None, None)


def _batched_alike(*tensors: Tensor) -> list[Tensor]:
    """Return tensors that are all batched where one of them is: vmap writes in place only what is batched already."""
    if not in_transformation():
        return list(tensors)
    zero = torch.stack([torch.zeros_like(tensor, dtype=torch.float32).sum() for tensor in tensors]).sum()
    return [tensor + zero.to(tensor.dtype) for tensor in tensors]


def _turned(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, options: Options, wide: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scaled queries, keys and values in reversed order, and the table with -inf where no query sees a key."""
    entry = torch.arange(table.shape[-1], device=table.device) - (q.shape[2] - 1)  # how far a key lies back
    hidden = entry < -(table.shape[-1] if options.right is None else options.right)
    if options.left is not None:
        hidden = hidden | (entry > options.left)
    return (
        q.to(wide) * options.scale,
        k.to(wide).flip(2),
        v.to(wide).flip(2),
        table.to(wide).masked_fill(hidden, -math.inf),
    )


def _chunks(q: Tensor, k: Tensor, options: Options) -> list[tuple[int, int, int, int]]:
    """Return queries [start, stop) and the reversed keys [first, last) that they may see, at least one key."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    step = max(16, SCORES_AT_ONCE // (batch * heads * keys))
    chunks = []
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        first = 0 if options.right is None else min(max(0, queries - stop - options.right), keys - 1)
        last = keys if options.left is None else min(keys, queries + options.left - start)
        chunks.append((start, stop, first, max(last, first + 1)))
    return chunks


def _scores(
    queries: Tensor,
    keys: Tensor,
    masked: Tensor,
    key_lengths: Tensor | None,
    start: int,
    stop: int,
    first: int,
    last: int,
) -> Tensor:
    """Return the biased scores [B, H, stop - start, last - first], -inf where a key is not seen."""
    chunk = queries[:, :, start:stop]
    scores = _ungrouped(_grouped(chunk, keys) @ keys[:, :, first:last].transpose(-1, -2), chunk)
    scores += masked[:, start + first : stop + last - 1].unfold(-1, last - first, 1)
    if key_lengths is None:
        return scores
    place = torch.arange(keys.shape[2] - 1 - first, keys.shape[2] - 1 - last, -1, device=keys.device)
    return scores.masked_fill_(place >= key_lengths[:, None, None, None], -math.inf)


def _diagonal_sums(tile: Tensor) -> Tensor:
    """Sum [H, m, n] over i + j = t into [H, m + n - 1]: padded by m, each row is read one place further on."""
    rows, columns = tile.shape[-2:]
    padded = F.pad(tile, (0, rows)).flatten(-2)
    return padded[:, : rows * (rows + columns - 1)].reshape(-1, rows, rows + columns - 1).sum(dim=-2)


def _grouped(x: Tensor, shared: Tensor) -> Tensor:
    """Reshape [B, H, m, n] to [B, Hkv, H / Hkv · m, n]: the rows that see the same keys, in one matrix."""
    groups = x.shape[1] // shared.shape[1]
    return x if groups == 1 else x.reshape(x.shape[0], shared.shape[1], groups * x.shape[2], x.shape[3])


def _ungrouped(x: Tensor, like: Tensor) -> Tensor:
    """Undo `_grouped`, to as many heads and rows as `like` has."""
    groups = like.shape[1] // x.shape[1]
    return x if groups == 1 else x.reshape(x.shape[0], like.shape[1], like.shape[2], x.shape[3])
