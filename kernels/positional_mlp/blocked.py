"""Evaluate positional MLPs on a CPU without gradients: a few nets at a time, every layer in the same memory.

The output of a layer then stays in the cache until the next layer reads it, and memory is allocated only once.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trans4init.kernels.differentiation import forward_mode
from trans4init.kernels.positional_mlp.reference import FEATURES, add_encoding, feature_dtype

__all__ = ["affine", "blocked_chain", "undifferentiated"]

AT_ONCE = 2**20
"""How many values of the widest hidden layer are computed at a time: 4 MiB of float32, the fastest of 0.5 to 8 MiB at
width 64. More leave the cache; fewer start more operations."""

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_.default,
    "relu": torch.relu_,
    "silu": functools.partial(F.silu, inplace=True),
    "tanh": torch.tanh_,
    "sin": torch.sin_,
}
"""The activations of `reference.ACTIVATIONS`, writing over their input."""


def undifferentiated(tensors: Sequence[Tensor]) -> bool:
    """Say whether values may be overwritten: no gradient of any kind is recorded, nothing is traced or vmapped."""
    if torch.compiler.is_compiling() or forward_mode():
        return False
    plain = all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
    if not plain or any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors):
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def blocked_chain(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str,
    add_to: Tensor | None,
) -> Tensor:
    """Compute `reference_positional_mlp` for tensors that are `undifferentiated`."""
    exact = feature_dtype(positions, frequencies, weights[0])
    nets, count, outputs = weights[0].shape[0], positions.shape[-1], weights[-1].shape[2]
    widest = max(weight.shape[2] for weight in weights[:-1])
    rows = min(count, max(1, AT_ONCE // widest))
    step = min(nets, max(1, AT_ONCE // (rows * widest)))
    out = weights[0].new_empty(nets, count, outputs)
    layers = [weight.new_empty(step, rows, weight.shape[2]) for weight in weights[:-1]]
    for row in range(0, count, rows):
        block = positions[..., row : row + rows].to(exact)
        inputs = FEATURES[features](block, frequencies.to(exact)).to(out.dtype)
        inputs = inputs.expand(nets, *inputs.shape[-2:])  # [G, rows, inputs]
        for net in range(0, nets, step):
            members = slice(net, net + step)
            state = inputs[members]
            for weight, bias, layer in zip(weights[:-1], biases[:-1], layers, strict=True):
                into = layer[: state.shape[0], : state.shape[1]]
                state = IN_PLACE[activation](affine(state, weight[members], bias[members], into))
            affine(state, weights[-1][members], biases[-1][members], out[members, row : row + rows])
    return add_encoding(out, add_to)


def affine(state: Tensor, weight: Tensor, bias: Tensor, into: Tensor | None = None) -> Tensor:
    """Return state [G, N, in] @ weight [G, in, out] + bias [G, out], [G, N, out], in the tensor `into` if one is given.

    One input needs no matrix product. For one output the product is transposed, since CPU libraries are worst at
    multiplying by a matrix of one column: six times slower, measured on AVX-512.
    """
    if weight.shape[1] == 1:
        return torch.addcmul(bias[:, None], state, weight, out=into)
    if weight.shape[2] == 1:
        row, across = weight[..., 0][:, None], None if into is None else into[..., 0][:, None]  # [G, 1, in], [G, 1, N]
        return torch.baddbmm(bias[:, None], row, state.transpose(1, 2), out=across)[:, 0, :, None]
    return torch.baddbmm(bias[:, None], state, weight, out=into)
