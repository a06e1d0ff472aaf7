"""Check what a call of `attention` is given, and say why an implementation can't do it."""

import math
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from trans4init.kernels.attention.launch import HEAD_DIMS
from trans4init.kernels.attention.reference import Options, RelativeBias, Window
from trans4init.kernels.availability import DTYPES, HAS_TRITON, dtype_names
from trans4init.kernels.differentiation import forward_mode, in_transformation

__all__ = ["IMPLEMENTATIONS", "STREAMED_FROM", "Implementation", "check_call", "refusals", "streams"]

Implementation = Literal["auto", "reference", "sdpa", "flex", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "sdpa", "flex", "triton")

STREAMED_FROM = 2**19
"""From more query-key pairs than this, over all heads, `streams` says yes; with fewer, streaming costs more time."""


def streams(q: Tensor, k: Tensor, query_lengths: Tensor | None, options: Options, return_lse: bool) -> bool:
    """Say whether "auto" computes a relative bias by `streamed_attention`: on a CPU, where scores outgrow the cache.

    With fewer scores, starting an operation per chunk costs more than it saves. Dropout, a softcap, query lengths and
    forward-mode derivatives can't be streamed: memory is quadratic in the lengths then.
    """
    if q.device.type != "cpu" or options.dropout_p > 0 or options.softcap is not None:
        return False
    if query_lengths is not None or forward_mode():
        return False
    return return_lse or q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] > STREAMED_FROM


def refusals(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    options: Options,
    return_lse: bool,
) -> dict[Implementation, str]:
    """Return the reason why it can't do the call, for each implementation that can't."""
    refusal: dict[Implementation, str] = {}
    learned = bias.table if isinstance(bias, RelativeBias) else bias
    on_gpu = q.device.type == "cuda"
    atomics = on_gpu and options.deterministic and learned is not None and learned.requires_grad

    if in_transformation():
        refusal["flex"] = "can't be called inside torch.func's transformations; 'reference' and 'sdpa' can"
    if forward_mode():
        refusal["flex"] = "has no derivative in forward mode; 'reference' and 'sdpa' have one"
    if options.softcap is not None:
        refusal["sdpa"] = "has no softcap; 'reference', 'flex' and 'triton' have one"
    if return_lse:
        refusal["sdpa"] = refusal["flex"] = "doesn't return the log-sum-exp; 'reference' and 'triton' do"
    if atomics:
        refusal["sdpa"] = refusal["flex"] = "sums a bias gradient in no fixed order; 'triton' can be deterministic"
    if options.dropout_p > 0:
        refusal["flex"] = "has no dropout"
    if q.shape[-1] < 16 and on_gpu:
        refusal["flex"] = f"needs a head dim of at least 16 on a GPU, and {q.shape[-1]} was given"
    if not on_gpu and torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, learned) if t is not None):
        refusal["flex"] = "has no gradient on a CPU"

    if q.shape[-1] not in HEAD_DIMS:
        refusal["triton"] = f"takes a head dim of {', '.join(map(str, HEAD_DIMS))}, and {q.shape[-1]} was given"
    if v.shape[-1] != q.shape[-1]:
        refusal["triton"] = (
            f"takes q, k and v of one head dim, and q has {q.shape[-1]} and v {v.shape[-1]}; 'sdpa' takes both"
        )
    if q.dtype not in DTYPES:
        refusal["triton"] = f"takes {dtype_names()}, and {q.dtype} was given"
    if not HAS_TRITON:
        refusal["triton"] = "needs Triton, which is not installed here"
    if isinstance(bias, Tensor):
        refusal["triton"] = "takes a bias only as a RelativeBias; 'reference' and 'sdpa' take a dense one"
    elif isinstance(bias, RelativeBias) and bias.table.dtype != torch.float32:
        refusal["triton"] = f"takes a float32 bias table, and {bias.table.dtype} was given"
    return refusal


def check_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    window: Window | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    softcap: float | None,
    dropout_p: float,
    impl: str,
) -> None:
    """Raise ValueError, in one sentence, for shapes, types and devices that don't fit together."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [batch, heads, length, head dim], and has shape {list(tensor.shape)}.")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor, and is {tensor.dtype}.")
        if not tensor.numel():
            raise ValueError(f"{name} must not be empty, and has shape {list(tensor.shape)}.")
    if k.shape[:3] != v.shape[:3] or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"k and v must share a shape that fits q; q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}."
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must share dtype and device; given are {q.dtype}, {k.dtype}, {v.dtype}.")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads can't share {k.shape[1]} key heads evenly.")
    _check_options(window, softcap, dropout_p)
    _check_lengths("key_lengths", key_lengths, q.shape[0])
    _check_lengths("query_lengths", query_lengths, q.shape[0])
    _check_bias(q, k, bias)
    others = {"k": k, "v": v, "key_lengths": key_lengths, "query_lengths": query_lengths}
    for name, other in (others | {"the bias": getattr(bias, "table", bias)}).items():
        if isinstance(other, Tensor) and other.device != q.device:
            raise ValueError(f"q and {name} must be on one device, and are on {q.device} and {other.device}.")


def _check_options(window: Any, softcap: float | None, dropout_p: float) -> None:
    pair = isinstance(window, tuple | list)
    sides = [side for side in (window if pair else [window]) if side is not None]
    whole = all(isinstance(side, Integral | torch.SymInt) and not isinstance(side, bool) for side in sides)
    if not whole or (pair and len(window) != 2) or any(side < (0 if pair else 1) for side in sides):
        raise ValueError(
            "window must be at least 1, or a pair (left, right) of at least 0, None for all keys on that side; "
            f"{window!r} was given."
        )
    if softcap is not None and not (isinstance(softcap, int | float) and 0 < softcap < math.inf):
        raise ValueError(f"softcap must be a number above 0, and {softcap!r} was given.")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must be from 0 to 1, and {dropout_p} was given.")


def _check_lengths(name: str, lengths: Any, batch: int) -> None:
    if isinstance(lengths, Tensor):
        if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ValueError(f"{name} must be [{batch}] integers, and is {list(lengths.shape)} {lengths.dtype}.")
    elif lengths is not None:
        raise ValueError(f"{name} must be a tensor of [{batch}] integers, and is {lengths!r}.")


def _check_bias(q: Tensor, k: Tensor, bias: RelativeBias | Tensor | None) -> None:
    if isinstance(bias, RelativeBias):
        expected = (q.shape[1], q.shape[2] + k.shape[2] - 1)
        if bias.table.shape != expected or not bias.table.is_floating_point():
            raise ValueError(
                f"the bias table must be {list(expected)} floats, and is {list(bias.table.shape)} {bias.table.dtype}."
            )
    elif bias is not None:
        pairs = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        fits = bias.dim() <= 4 and all(b in (1, p) for b, p in zip(bias.shape[::-1], pairs[::-1], strict=False))
        if not fits or not bias.is_floating_point():
            raise ValueError(
                f"a dense bias must be floats that broadcast to {list(pairs)}, and is {list(bias.shape)} {bias.dtype}."
            )
