"""Check what a call of `positional_mlp` is given, and say why the Triton kernels can't do it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from trans4init.kernels.availability import DTYPES, dtype_names, machine_refusal
from trans4init.kernels.positional_mlp.launch import MAX_OUTPUTS, MAX_WIDTH
from trans4init.kernels.positional_mlp.reference import ACTIVATIONS, FEATURES

__all__ = ["IMPLEMENTATIONS", "Implementation", "check_call", "triton_refusal"]

Implementation = Literal["auto", "reference", "bmm", "compile", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "bmm", "compile", "triton")


def check_call(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    features: str,
    activation: str,
    add_to: Tensor | None,
    impl: str,
) -> None:
    """Raise ValueError, in one sentence, for the first thing that doesn't fit."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    if features not in FEATURES:
        raise ValueError(f"features {features!r} is not one of {', '.join(FEATURES)}.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}.")
    _check_layers(weights, biases)
    groups = weights[0].shape[0]
    _check_scalars("positions", positions, "N", groups)
    _check_scalars("frequencies", frequencies, "F", groups)
    count = frequencies.shape[-1] * (2 if features == "fourier" else 1)
    if weights[0].shape[1] != count:
        raise ValueError(
            f"{features!r} with {frequencies.shape[-1]} frequencies gives {count} inputs, "
            f"and the first layer takes {weights[0].shape[1]}."
        )
    if add_to is not None:
        _check_add_to(add_to, groups, positions.shape[-1], weights[-1].shape[2])
    tensors = [positions, frequencies, *weights, *biases, *([] if add_to is None else [add_to])]
    devices = {str(tensor.device) for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"all tensors must be on one device, and are on {', '.join(sorted(devices))}.")
    if _readable(positions) and not bool(positions.isfinite().all()):
        raise ValueError("positions must be finite, and hold infinity or NaN.")


def triton_refusal(
    positions: Tensor, frequencies: Tensor, weights: Sequence[Tensor], add_to: Tensor | None
) -> str | None:
    """Return why the Triton kernels can't do a call, in one sentence; None where they can."""
    if (refusal := machine_refusal(positions)) is not None:
        return refusal
    dtypes = [tensor.dtype for tensor in (weights[0], add_to) if tensor is not None]
    if any(dtype not in DTYPES for dtype in dtypes):
        names = ", ".join(map(str, dtypes))
        return f"impl 'triton' takes weights and add_to in {dtype_names()}, and got {names}."
    if weights[0].dtype == torch.bfloat16 and not positions.is_cuda:
        return "impl 'triton' takes no bfloat16 weights on a CPU, since Triton's interpreter multiplies them wrongly."
    if torch.promote_types(positions.dtype, frequencies.dtype) not in DTYPES:
        return "impl 'triton' computes features in float32, and positions or frequencies are float64."
    if positions.requires_grad:
        return "impl 'triton' has no gradient to positions, and they require one."
    widest, outputs = max(weight.shape[2] for weight in weights[:-1]), weights[-1].shape[2]
    if widest > MAX_WIDTH or outputs > MAX_OUTPUTS:
        return (
            f"impl 'triton' goes to width {MAX_WIDTH} and {MAX_OUTPUTS} outputs, "
            f"and {widest} and {outputs} were asked for."
        )
    return None


def _check_layers(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    if not 2 <= len(weights) <= 4:
        raise ValueError(f"a net has 1 to 3 hidden layers, so 2 to 4 weights, and {len(weights)} were given.")
    if len(biases) != len(weights):
        raise ValueError(f"each weight needs one bias, and {len(weights)} weights and {len(biases)} biases were given.")
    first = weights[0]
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.dim() != 3 or not weight.numel():
            raise ValueError(f"weight {index} must be [nets, in, out], and has shape {list(weight.shape)}.")
        if weight.shape[0] != first.shape[0]:
            raise ValueError(f"weight {index} is of {weight.shape[0]} nets, and weight 0 of {first.shape[0]}.")
        if index and weight.shape[1] != weights[index - 1].shape[2]:
            raise ValueError(
                f"weight {index} takes {weight.shape[1]} inputs, and the layer before it has "
                f"{weights[index - 1].shape[2]} outputs."
            )
        if bias.shape != (weight.shape[0], weight.shape[2]):
            expected = [weight.shape[0], weight.shape[2]]
            raise ValueError(f"bias {index} must be {expected}, and has shape {list(bias.shape)}.")
        if not weight.dtype == bias.dtype == first.dtype or not weight.is_floating_point():
            raise ValueError(f"weights and biases must share one floating-point dtype, and {bias.dtype} is among them.")


def _check_scalars(name: str, values: Tensor, axis: str, groups: int) -> None:
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating-point, and are {values.dtype}.")
    if values.dim() not in (1, 2) or not values.shape[-1] or (values.dim() == 2 and values.shape[0] != groups):
        raise ValueError(f"{name} must be [{axis}] or [{groups}, {axis}], and have shape {list(values.shape)}.")


def _check_add_to(add_to: Tensor, groups: int, positions: int, outputs: int) -> None:
    shape = [positions, outputs]
    fits = list(add_to.shape[-2:]) == shape and add_to.numel() and add_to.is_floating_point()
    if not fits or add_to.dim() not in (3, 4) or (add_to.dim() == 4 and add_to.shape[0] != groups):
        expected = f"[{groups}, B, {positions}, {outputs}]"
        raise ValueError(f"add_to must be floating-point and {expected}, and is {add_to.dtype} {list(add_to.shape)}.")
    if add_to.dim() == 3 and groups != 1:
        raise ValueError(f"add_to without an axis for the nets is for one net, and there are {groups} nets.")


def _readable(values: Tensor) -> bool:
    """Say whether values can be read here: on a GPU that would wait for it, and a trace has no values."""
    plain = type(values) in (Tensor, torch.nn.Parameter) and values.device.type == "cpu"
    return plain and not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(values)
