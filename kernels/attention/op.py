"""One attention function for every model of the project; `impl` says which code computes it."""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from trans4init.kernels.attention import peers
from trans4init.kernels.attention.launch import HEAD_DIMS
from trans4init.kernels.attention.reference import RelativeBias, draw_seed, reference_attention
from trans4init.kernels.attention.registration import fused_attention
from trans4init.kernels.attention.streamed import streamed_attention
from trans4init.kernels.availability import DTYPES, HAS_TRITON, dtype_names

__all__ = ["IMPLEMENTATIONS", "attention"]

Implementation = Literal["auto", "reference", "sdpa", "flex", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "sdpa", "flex", "triton")
STREAMED_FROM = 2**19  # query-key pairs over all heads


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: RelativeBias | Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
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
    window: int | None = None,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
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
    window: int | None = None,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    deterministic: bool = False,
    impl: Implementation = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(scale · q kᵀ + bias) v.

    q [B, H, Lq, D]; k, v [B, Hkv, Lk, D], H a multiple of Hkv (grouped queries) -> [B, H, Lq, D].
    bias: `RelativeBias`, or a float tensor broadcastable to [B, H, Lq, Lk]. causal: query i sees keys
    j <= i + Lk - Lq (the ends are aligned). window w: and i + Lk - Lq - w < j. key_lengths: [B] integers, the keys of
    each batch entry that are real. scale: 1/√D unless given. dropout_p: the share of weights that is dropped, by a
    seed drawn from PyTorch's generator. deterministic: the same gradients to the last bit in every run. return_lse:
    also the log-sum-exp of each query's scores, [B, H, Lq] float32. A query that sees no key, or all of them with a
    bias of -inf, gives 0 (and -inf). Under autocast q, k and v are cast to its type.

    impl: "reference" is the eager specification; "triton" the kernels, compiled on a GPU and interpreted (slowly, for
    tests) on a CPU; "sdpa" and "flex" are PyTorch's; "auto" is the fastest of them that can do the call right.
    Raises ValueError, in one sentence and before any computation, for shapes that don't fit and for a combination
    that the implementation can't do.
    """
    q, k, v = _autocast(q, k, v)
    _check(q, k, v, bias, window, key_lengths, dropout_p, impl)
    if window is not None and window >= k.shape[2]:
        window = None  # it hides no key, and as a number it might pass 2³¹ in a kernel
    refusal = _refusals(q, k, v, bias, dropout_p, deterministic, return_lse)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if impl == "auto":
        if isinstance(bias, RelativeBias) and _streams(q, k, dropout_p, return_lse):
            out, lse = streamed_attention(q, k, v, bias.table, key_lengths, causal, window, scale)
            return (out, lse) if return_lse else out
        impl = next(name for name in _preference(q) if name not in refusal)
    elif impl in refusal:
        raise ValueError(f"impl {impl!r} {refusal[impl]}.")
    if impl == "sdpa":
        return peers.sdpa(
            q, k, v, bias=bias, causal=causal, window=window, key_lengths=key_lengths, scale=scale, dropout_p=dropout_p
        )
    if impl == "flex":
        return peers.flex(q, k, v, bias=bias, causal=causal, window=window, key_lengths=key_lengths, scale=scale)
    seed = draw_seed(q.device) if dropout_p > 0 else None
    if impl == "reference":
        out, lse = reference_attention(
            q,
            k,
            v,
            bias=bias,
            causal=causal,
            window=window,
            key_lengths=key_lengths,
            scale=scale,
            dropout_p=dropout_p,
            seed=seed,
        )
    else:
        table = bias.table[None] if isinstance(bias, RelativeBias) else None
        out, lse = fused_attention(q, k, v, table, key_lengths, seed, causal, window, scale, dropout_p, deterministic)
    return (out, lse) if return_lse else out


def _autocast(*tensors: Tensor) -> list[Tensor]:
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # meta has no autocast to ask for
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [tensor.to(dtype) if tensor.dtype in DTYPES else tensor for tensor in tensors]


def _streams(q: Tensor, k: Tensor, dropout_p: float, return_lse: bool) -> bool:
    """Whether `auto` takes a relative bias a few queries at a time: on a CPU, where the scores outgrow the cache.

    Below that its launches cost more than they save. With dropout it can't, and memory is quadratic in the lengths.
    """
    pairs = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    return q.device.type == "cpu" and dropout_p == 0 and (pairs > STREAMED_FROM or return_lse)


def _preference(q: Tensor) -> tuple[Implementation, ...]:
    """The implementations in order of speed on this machine."""
    return ("triton", "sdpa", "reference") if q.device.type == "cuda" else ("sdpa", "reference")


def _refusals(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    dropout_p: float,
    deterministic: bool,
    return_lse: bool,
) -> dict[Implementation, str]:
    """Why an implementation can't do a call, for those that can't."""
    refusal: dict[Implementation, str] = {}
    learned = bias.table if isinstance(bias, RelativeBias) else bias
    on_gpu = q.device.type == "cuda"
    atomics = on_gpu and deterministic and learned is not None and learned.requires_grad

    if return_lse:
        refusal["sdpa"] = refusal["flex"] = "doesn't return the log-sum-exp; 'reference' and 'triton' do"
    if atomics:
        refusal["sdpa"] = refusal["flex"] = "sums a bias gradient in no fixed order; 'triton' can be deterministic"
    if dropout_p > 0:
        refusal["flex"] = "has no dropout"
    if q.shape[-1] < 16 and on_gpu:
        refusal["flex"] = f"needs a head dim of at least 16 on a GPU, and {q.shape[-1]} was given"
    if not on_gpu and torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, learned) if t is not None):
        refusal["flex"] = "has no gradient on a CPU"

    if q.shape[-1] not in HEAD_DIMS:
        refusal["triton"] = f"takes a head dim of {', '.join(map(str, HEAD_DIMS))}, and {q.shape[-1]} was given"
    if q.dtype not in DTYPES:
        refusal["triton"] = f"takes {dtype_names()}, and {q.dtype} was given"
    if not HAS_TRITON:
        refusal["triton"] = "needs Triton, which is not installed here"
    if isinstance(bias, Tensor):
        refusal["triton"] = "takes a bias as a RelativeBias alone; a dense one goes to 'reference' or 'sdpa'"
    elif isinstance(bias, RelativeBias) and bias.table.dtype != torch.float32:
        refusal["triton"] = f"takes a float32 bias table, and {bias.table.dtype} was given"
    return refusal


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    window: int | None,
    key_lengths: Tensor | None,
    dropout_p: float,
    impl: str,
) -> None:
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [batch, heads, length, head dim], and has shape {list(tensor.shape)}.")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be a floating-point tensor, and is {tensor.dtype}.")
        if not tensor.numel():
            raise ValueError(f"{name} must not be empty, and has shape {list(tensor.shape)}.")
    if k.shape != v.shape or k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(
            f"k and v must share a shape that fits q; q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}."
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must share dtype and device; given are {q.dtype}, {k.dtype}, {v.dtype}.")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads can't share {k.shape[1]} key heads evenly.")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, and {window} was given.")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must be from 0 to 1, and {dropout_p} was given.")
    if key_lengths is not None and (key_lengths.shape != (q.shape[0],) or key_lengths.dtype.is_floating_point):
        raise ValueError(
            f"key_lengths must be [{q.shape[0]}] integers, and is {list(key_lengths.shape)} {key_lengths.dtype}."
        )
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
    others = {"k": k, "v": v, "key_lengths": key_lengths, "the bias": getattr(bias, "table", bias)}
    for name, other in others.items():
        if isinstance(other, Tensor) and other.device != q.device:
            raise ValueError(f"q and {name} must be on one device, and are on {q.device} and {other.device}.")
