"""Register the Triton kernels of attention with PyTorch: result shapes for the compiler, gradients, vmap.

B batch, H query heads, Hkv key heads, Lq queries, Lk keys, D head dimension; M tables and S dropout seeds serve B/M and
B/S consecutive batch entries each.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.attention import launch
from trans4init.kernels.attention.launch import Inputs
from trans4init.kernels.attention.reference import Options
from trans4init.kernels.torch_operators import differentiable_operator

__all__ = ["as_arguments", "attention_backward", "attention_forward", "fused_attention"]


def as_arguments(options: Options) -> tuple[int | None, int | None, float, float, bool, float | None]:
    """Return options as the operators take them: left and right bounds, scale, dropout, determinism, softcap."""
    return (
        options.left,
        options.right,
        options.scale,
        options.dropout_p,
        options.deterministic,
        options.softcap,
    )


@torch.library.custom_op("trans4init::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    seed: Tensor | None,
    left: int | None,
    right: int | None,
    scale: float,
    dropout_p: float,
    deterministic: bool,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Return out [B, H, Lq, D] and float32 log-sum-exp [B, H, Lq].

    The arguments are the fields of `Inputs`, and those that `as_arguments` returns, since an operator takes no
    dataclass.
    """
    options = Options(False, (left, right), scale, dropout_p, deterministic, softcap)
    return launch.launch_forward(Inputs(q, k, v, table, key_lengths, query_lengths, seed, options))


@torch.library.custom_op("trans4init::attention_backward", mutates_args=())
def attention_backward(
    out_grad: Tensor,
    lse_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    key_lengths: Tensor | None,
    query_lengths: Tensor | None,
    seed: Tensor | None,
    left: int | None,
    right: int | None,
    scale: float,
    dropout_p: float,
    deterministic: bool,
    softcap: float | None,
    table_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v and table, the last one empty unless it is needed."""
    options = Options(False, (left, right), scale, dropout_p, deterministic, softcap)
    inputs = Inputs(q, k, v, table, key_lengths, query_lengths, seed, options)
    return launch.launch_backward(out_grad, lse_grad, out, lse, inputs, table_needs_grad)


@attention_forward.register_fake
def _forward_shapes(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


@attention_backward.register_fake
def _backward_shapes(
    out_grad: Tensor,
    lse_grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = table.shape if table is not None and rest[-1] else (0,)
    return (*(t.new_empty(t.shape) for t in (q, k, v)), q.new_empty(shape, dtype=torch.float32))  # type: ignore[return-value]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:7])
    ctx.options = inputs[7:]


def _differentiate(
    ctx: Any, out_grad: Tensor, lse_grad: Tensor, backward: Callable[..., Any] = attention_backward
) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[3]
    q_grad, k_grad, v_grad, table_grad = backward(out_grad, lse_grad, *ctx.saved_tensors, *ctx.options, needed)
    return (q_grad, k_grad, v_grad, table_grad if needed else None, *([None] * 9))


def _fold(tensor: Tensor | None, dim: int | None, members: int) -> Tensor | None:
    """Fold the vmapped dimension `dim` into the batch: [members · batch, ...]."""
    if tensor is None:
        return None
    tensor = tensor.unsqueeze(0).expand(members, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


@attention_forward.register_vmap
def _forward_members(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
    members = info.batch_size
    folded = [_fold(tensor, dim, members) for tensor, dim in zip(args[:7], in_dims[:7], strict=True)]
    outputs = attention_forward(*folded, *args[7:])
    return tuple(output.unflatten(0, (members, -1)) for output in outputs), (0, 0)


@attention_backward.register_vmap
def _backward_members(
    info: Any, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    members = info.batch_size
    folded = [_fold(tensor, dim, members) for tensor, dim in zip(args[:11], in_dims[:11], strict=True)]
    *gradients, table_grad = attention_backward(*folded, *args[11:])
    split = [gradient.unflatten(0, (members, -1)) for gradient in gradients]
    if args[-1]:
        return (*split, table_grad.unflatten(0, (members, -1))), (0, 0, 0, 0)
    return (*split, table_grad), (0, 0, 0, None)


fused_attention = differentiable_operator(
    attention_forward, attention_backward, _remember, _differentiate, "The fused attention"
)
