"""Compute attention with an optional relative bias; `impl` says which code does it."""

import contextlib
import math
from typing import Literal, overload

import torch
from torch import Tensor

from trans4init.kernels.attention.checks import Implementation, check_call, refusals, streams
from trans4init.kernels.attention.pytorch import flex, sdpa
from trans4init.kernels.attention.reference import (
    Options,
    RelativeBias,
    Window,
    bounds,
    draw_seed,
    reference_attention,
)
from trans4init.kernels.attention.registration import as_arguments, fused_attention
from trans4init.kernels.attention.streamed import streamed_attention
from trans4init.kernels.availability import DTYPES
from trans4init.kernels.differentiation import forward_mode

__all__ = ["attention"]


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None = None,
    causal: bool = False,
    window: Window | None = None,
    key_lengths: Tensor | None = None,
    query_lengths: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout_p: float = 0.0,
    deterministic: bool = False,
    impl: Implementation = "auto",
    return_lse: Literal[False] = False,
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None = None,
    causal: bool = False,
    window: Window | None = None,
    key_lengths: Tensor | None = None,
    query_lengths: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout_p: float = 0.0,
    deterministic: bool = False,
    impl: Implementation = "auto",
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None = None,
    causal: bool = False,
    window: Window | None = None,
    key_lengths: Tensor | None = None,
    query_lengths: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dropout_p: float = 0.0,
    deterministic: bool = False,
    impl: Implementation = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(scale · q kᵀ + bias) v.

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D], H a multiple of Hkv (grouped queries) -> [B, H, Lq, D]; values may have a
    head dim of their own. Query i stands at key position e = i + Lk - Lq: the ends are aligned. bias: `RelativeBias`,
    or a float tensor broadcastable to [B, H, Lq, Lk]. causal: a query sees only keys j <= e. window: w, only keys e - w
    < j; or (left, right), only keys e - left <= j <= e + right, None for all on that side. key_lengths: [B] integers,
    how many keys of each batch entry are real. query_lengths: [B] integers, how many queries are real; the ends of what
    is real are aligned then, e = i + key length - query length, and queries from the query length on give 0. scale:
    1/√D unless given. softcap: c, the scaled score s becomes c · tanh(s / c) before the bias is added. dropout_p: the
    share of weights that is dropped, by a seed drawn from PyTorch's generator. deterministic: gradients are the same to
    the last bit in every run. return_lse: also return the log-sum-exp of each query's scores, [B, H, Lq] float32. A
    query that sees no key, or only keys with a bias of -inf, gives 0 (and a log-sum-exp of -inf). Under autocast q, k
    and v are cast to autocast's dtype.

    impl: "reference" is the eager specification; "triton" the kernels, compiled on a GPU and interpreted (slowly, for
    tests) on a CPU; "sdpa" and "flex" are PyTorch's functions; "auto" is the fastest one that can do the call right.
    Raises ValueError, in one sentence and before any computation, for shapes that don't fit and for a combination
    that the implementation can't do.
    """
    autocast = q.device.type != "meta" and torch.is_autocast_enabled(q.device.type)  # meta has no autocast to ask for
    if autocast:
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (tensor.to(dtype) if tensor.dtype in DTYPES else tensor for tensor in (q, k, v))
    check_call(q, k, v, bias, window, key_lengths, query_lengths, softcap, dropout_p, impl)
    if query_lengths is not None and key_lengths is None:
        key_lengths = torch.full_like(query_lengths, k.shape[2], dtype=torch.int64)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    window = _without_idle_sides(window, q.shape[2], k.shape[2])
    options = Options(causal, window, scale, dropout_p, deterministic, softcap)
    # Inside an implementation autocast would round the bias, and the float32 scores of the specification.
    with torch.autocast(q.device.type, enabled=False) if autocast else contextlib.nullcontext():
        return _attend(q, k, v, bias, key_lengths, query_lengths, options, return_lse, impl)


def _without_idle_sides(window: Window | None, queries: int, keys: int) -> Window | None:
    """Return the window without bounds that hide no key: in a kernel a large one could overflow 32 bits."""
    left, right = bounds(False, tuple(window) if isinstance(window, list) else window)
    left = None if left is None or left >= keys - 1 else left
    right = None if right is None or right >= queries - 1 else right
    return None if left is None and right is None else (left, right)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    options: Options,
    return_lse: bool,
    impl: Implementation,
) -> Tensor | tuple[Tensor, Tensor]:
    """Choose the implementation and call it, for arguments that are checked."""
    refusal = refusals(q, k, v, bias, options, return_lse)
    if impl == "auto":
        if isinstance(bias, RelativeBias) and streams(q, k, query_lengths, options, return_lse):
            out, lse = streamed_attention(q, k, v, bias.table, key_lengths, options)
            return (out, lse) if return_lse else out
        impl = next(name for name in _preference(q) if name not in refusal)
    elif impl in refusal:
        raise ValueError(f"impl {impl!r} {refusal[impl]}.")
    if impl in ("sdpa", "flex"):
        return (sdpa if impl == "sdpa" else flex)(q, k, v, bias, key_lengths, query_lengths, options)
    seed = draw_seed(q.device) if options.dropout_p > 0 else None
    if impl == "reference":
        out, lse = reference_attention(q, k, v, bias, key_lengths, query_lengths, seed, options)
    else:
        table = bias.table[None] if isinstance(bias, RelativeBias) else None
        out, lse = fused_attention(q, k, v, table, key_lengths, query_lengths, seed, *as_arguments(options))
    return (out, lse) if return_lse else out


def _preference(q: Tensor) -> tuple[Implementation, ...]:
    """Return the implementations that "auto" chooses from on the device of q, the fastest first.

    The kernels say themselves that they have no derivative in forward mode, if they are asked for by name.
    """
    kernels = q.device.type == "cuda" and not forward_mode()
    return ("triton", "sdpa", "reference") if kernels else ("sdpa", "reference")
