"""Register the positional MLP's Triton kernels with PyTorch: result shapes for the compiler, gradients, vmap.

Shapes are those of `launch.py`: positions [G or 1, N], frequencies [G or 1, F], parameters [G, P], `add_to`
[G, B, N, out].
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.positional_mlp import launch
from trans4init.kernels.torch_operators import differentiable_operator

__all__ = ["fused_positional_mlp", "positional_mlp_backward", "positional_mlp_forward"]


@torch.library.custom_op("trans4init::positional_mlp", mutates_args=())
def positional_mlp_forward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    widths: Sequence[int],
    features: str,
    activation: str,
) -> Tensor:
    """Return the nets' values, [G, B or 1, N, out]; widths: frequencies, hidden, outputs."""
    return launch.launch_forward(positions, frequencies, parameters, add_to, widths, features, activation)


@torch.library.custom_op("trans4init::positional_mlp_backward", mutates_args=())
def positional_mlp_backward(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    widths: Sequence[int],
    features: str,
    activation: str,
    train_frequencies: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of parameters [G, P] and of each net's frequencies [G, F]; upstream [G, N, out]."""
    return launch.launch_backward(
        positions, frequencies, parameters, upstream, widths, features, activation, train_frequencies
    )


@positional_mlp_forward.register_fake
def _forward_shape(
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    widths: Sequence[int],
    *_: Any,
) -> Tensor:
    return launch.empty_result(positions, parameters, add_to, widths)


@positional_mlp_backward.register_fake
def _backward_shapes(
    positions: Tensor, frequencies: Tensor, parameters: Tensor, upstream: Tensor, widths: Sequence[int], *_: Any
) -> tuple[Tensor, Tensor]:
    of_frequencies = positions.new_empty(parameters.shape[0], widths[0], dtype=torch.float32)
    return torch.empty_like(parameters, memory_format=torch.contiguous_format), of_frequencies


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    positions, frequencies, parameters, _, widths, features, activation = inputs
    ctx.save_for_backward(positions, frequencies, parameters)
    ctx.net = (widths, features, activation)


def _differentiate(
    ctx: Any, upstream: Tensor, backward: Callable[..., Any] = positional_mlp_backward
) -> tuple[Tensor | None, ...]:
    positions, frequencies, parameters = ctx.saved_tensors
    moves_positions, trains_frequencies, trains_parameters, trains_add_to, *_ = ctx.needs_input_grad
    if moves_positions:  # inside torch.func's vmap, `triton_refusal` can't see that they require a gradient
        raise NotImplementedError("impl 'triton' has no gradient to positions; 'reference' and 'bmm' have one.")
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
    """Fold vmap's axis `dim` into the axis of the nets; a tensor that nets and members share stays shared.

    nets: how many nets each member has, for a tensor that they may share; 0 for one that always has a row for each.
    """
    if dim is None:
        return tensor if tensor.shape[0] == 1 and nets > 0 else tensor.repeat(size, *[1] * (tensor.dim() - 1))
    moved = tensor.movedim(dim, 0)
    if nets:
        moved = moved.expand(size, nets, *moved.shape[2:])
    return moved.flatten(0, 1)


@positional_mlp_forward.register_vmap
def _forward_members(
    info: Any,
    in_dims: tuple[int | None, ...],
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    add_to: Tensor | None,
    *net: Any,
) -> tuple[Tensor, int]:
    size, nets = info.batch_size, parameters.shape[0 if in_dims[2] != 0 else 1]
    out: Tensor = positional_mlp_forward(
        _with_nets(positions, in_dims[0], size, nets),
        _with_nets(frequencies, in_dims[1], size, nets),
        _with_nets(parameters, in_dims[2], size, 0),
        None if add_to is None else _with_nets(add_to, in_dims[3], size, 0),
        *net,
    )
    return out.view(size, nets, *out.shape[1:]), 0


@positional_mlp_backward.register_vmap
def _backward_members(
    info: Any,
    in_dims: tuple[int | None, ...],
    positions: Tensor,
    frequencies: Tensor,
    parameters: Tensor,
    upstream: Tensor,
    *net: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    size, nets = info.batch_size, parameters.shape[0 if in_dims[2] != 0 else 1]
    gradients = positional_mlp_backward(
        _with_nets(positions, in_dims[0], size, nets),
        _with_nets(frequencies, in_dims[1], size, nets),
        _with_nets(parameters, in_dims[2], size, 0),
        _with_nets(upstream, in_dims[3], size, 0),
        *net,
    )
    of_parameters, of_frequencies = (gradient.view(size, nets, -1) for gradient in gradients)
    return (of_parameters, of_frequencies), (0, 0)


_fused = differentiable_operator(
    positional_mlp_forward, positional_mlp_backward, _remember, _differentiate, "The fused positional MLP"
)


def fused_positional_mlp(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str,
    add_to: Tensor | None,
) -> Tensor:
    """Compute `reference_positional_mlp` in one kernel, for calls that `triton_refusal` does not refuse."""
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
