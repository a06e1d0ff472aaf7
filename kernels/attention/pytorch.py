"""Call PyTorch's own attention with our arguments: `scaled_dot_product_attention` and `flex_attention`."""

import contextlib
import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.kernels.attention.reference import Options, RelativeBias, dense_bias, visible
from trans4init.kernels.differentiation import forward_mode, in_transformation
from trans4init.kernels.torch_operators import once_differentiable

__all__ = ["flex", "sdpa"]


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    options: Options,
) -> Tensor:
    """Attend by `scaled_dot_product_attention`; what it has no argument for becomes a mask of Lq · Lk entries.

    PyTorch never gets a scale of 0 or less: with `is_causal` it hides keys by -inf before it scales. A bias stays
    float32, which PyTorch takes beside 16-bit inputs on a CPU alone: on a GPU such inputs are computed in float32.
    With a bias, cuDNN is not used: its gradient of a float mask has been wrong on Hopper GPUs.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    causal, window, scale, dtype = options.causal, options.window, options.scale, q.dtype
    if scale < 0:
        q, scale = -q, -scale
    elif scale == 0:
        q, scale = 0 * q, 1.0
    if bias is None and window is None and key_lengths is None and (not causal or queries == keys):
        return _attend(q, k, v, None, causal, scale, options.dropout_p)
    lengths = {"key_lengths": key_lengths, "query_lengths": query_lengths}
    mask = visible(queries, keys, causal=causal, window=window, device=q.device, **lengths)
    sees_any = mask.any(dim=-1, keepdim=True)
    # A row that sees no key would be NaN: let it see all keys, then set its result to 0.
    mask = mask | ~sees_any
    backends: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if bias is not None:
        wide = torch.promote_types(dtype, torch.float32)
        mask = dense_bias(bias, queries, keys, wide).masked_fill(~mask, -math.inf)
        if q.device.type == "cuda":
            backends = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
            q, k, v = q.to(wide), k.to(wide), v.to(wide)
    with backends:
        out = _attend(q, k, v, mask, False, scale, options.dropout_p)
    return out.masked_fill(~sees_any, 0.0).to(dtype)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float, dropout_p: float
) -> Tensor:
    """Call PyTorch's function, so that every derivative exists that is asked for.

    Its fused operations have only the first derivative, and vmap repeats them member by member; its own formula has
    all of them. On a CPU that is also what it computes with dropout, or with a mask that requires a gradient.
    """
    if in_transformation() or forward_mode():
        return _by_formula(q, k, v, mask, is_causal, scale, dropout_p)
    out = _sdpa(q, k, v, mask, is_causal, scale, dropout_p)
    fused = q.device.type != "cpu" or not (dropout_p > 0 or (mask is not None and mask.requires_grad))
    if fused and out.requires_grad and not torch.compiler.is_compiling():
        out = _TwiceDifferentiable.apply(out, q, k, v, mask, is_causal, scale, dropout_p)  # type: ignore[no-untyped-call]
    return out


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool, scale: float, dropout_p: float
) -> Tensor:
    # Where shapes are symbols, so is the comparison itself, which PyTorch's function doesn't take as enable_gqa.
    grouped: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, **grouped
    )


def _by_formula(*arguments: Any) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return _sdpa(*arguments)


class _TwiceDifferentiable(torch.autograd.Function):
    """Returns a result of PyTorch's as it is; a gradient that is to be differentiated again is computed by formula."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.options = options
        return out.detach()

    @staticmethod
    def backward(ctx: Any, out_grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return (out_grad, *[None] * 7)
        *_, dropout_p = ctx.options
        if dropout_p > 0:
            raise NotImplementedError("impl 'sdpa' has no second derivative with dropout; impl 'reference' has one.")
        # Views, so that a key which was computed from a query isn't part of the query's own gradient.
        inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in ctx.saved_tensors]
        wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
        gradients = iter(torch.autograd.grad(_by_formula(*inputs, *ctx.options), wanted, out_grad, create_graph=True))
        needed = ctx.needs_input_grad[1:5]
        return (None, *(next(gradients) if needs else None for needs in needed), None, None, None)


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: RelativeBias | Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    options: Options,
) -> Tensor:
    """Attend by `flex_attention`: compiled on a GPU, in its unfused form on a CPU."""
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    if not torch.is_grad_enabled():  # PyTorch asks only whether the tensors require gradients
        q, k, v = q.detach(), k.detach(), v.detach()
    wide = torch.promote_types(q.dtype, torch.float32)
    softcap = options.softcap
    table = bias.table.to(wide) if isinstance(bias, RelativeBias) else None
    dense = bias.to(wide).expand(batch, heads, queries, keys) if isinstance(bias, Tensor) else None

    def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if softcap is not None:
            value = softcap * (value / softcap).tanh()
        if table is not None:
            value = value + table[h, i - j + keys - 1]
        return value if dense is None else value + dense[b, h, i, j]

    mask = None
    if key_lengths is not None:
        mask = _new_block_mask(options, queries, keys, q.device, key_lengths, query_lengths)
    elif options.causal or options.window is not None:
        mask = _block_mask(options, queries, keys, q.device)
    out: Tensor = _flex_attention(q.device.type)(
        q,
        k,
        v,
        score_mod=None if bias is None and softcap is None else score,
        block_mask=mask,
        scale=options.scale,
        enable_gqa=heads != k.shape[1],
    )
    return once_differentiable(out, "impl 'flex'")


def _new_block_mask(
    options: Options,
    queries: int,
    keys: int,
    device: torch.device,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
) -> Any:
    """Return which blocks of keys each block of queries sees; for each batch entry where lengths are given."""
    from torch.nn.attention.flex_attention import create_block_mask

    left, right = options.left, options.right
    real_keys = None if key_lengths is None else key_lengths.long().clamp(0, keys)
    real_queries = None if query_lengths is None else query_lengths.long().clamp(0, queries)

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        result, position = j < keys, i + keys - queries
        if real_keys is not None:
            result = result & (j < real_keys[b])
        if real_keys is not None and real_queries is not None:
            result, position = result & (i < real_queries[b]), i + real_keys[b] - real_queries[b]
        if right is not None:
            result = result & (j <= position + right)
        return result if left is None else result & (j >= position - left)

    batch = None if key_lengths is None else len(key_lengths)
    return create_block_mask(sees, B=batch, H=None, Q_LEN=queries, KV_LEN=keys, device=device)


@functools.lru_cache(maxsize=8)
def _block_mask(options: Options, queries: int, keys: int, device: torch.device) -> Any:
    """Return a mask that all batch entries share, made once per shape: making it takes longer than the attention."""
    return _new_block_mask(options, queries, keys, device, None, None)


@functools.cache
def _flex_attention(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)
