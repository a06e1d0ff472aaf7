"""One function for many small networks of positions; `impl` says which code computes it."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from trans4init.kernels.availability import DTYPES
from trans4init.kernels.positional_mlp.blocked import affine, blocked_chain, undifferentiated
from trans4init.kernels.positional_mlp.checks import check_call
from trans4init.kernels.positional_mlp.launch import triton_positional_mlp, triton_refusal
from trans4init.kernels.positional_mlp.reference import (
    ACTIVATIONS,
    FEATURES,
    add_encoding,
    feature_dtype,
    reference_positional_mlp,
)

__all__ = ["IMPLEMENTATIONS", "Implementation", "positional_mlp"]

Implementation = Literal["auto", "reference", "bmm", "compile", "triton"]
IMPLEMENTATIONS: tuple[Implementation, ...] = ("auto", "reference", "bmm", "compile", "triton")


def positional_mlp(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str = "fourier",
    activation: str = "gelu",
    add_to: Tensor | None = None,
    impl: Implementation = "auto",
) -> Tensor:
    """G small networks of one scalar: features -> 1 to 3 hidden layers -> a linear last layer.

    positions: [N], shared by the nets, or [G, N]; floating-point and finite. frequencies w: [F] or [G, F], with
    features "fourier" [sin(p w), cos(p w)] (2F inputs), "log" log(1 + w |p|) (w >= 0, F inputs) or "linear" p w
    (F inputs). weights: 2 to 4 tensors [G, in, out]; biases: as many [G, out]; they share a dtype, the result's.
    activation: gelu (with erf), relu, silu, tanh or sin, on the hidden layers. -> [G, N, out].
    add_to: [G, B, N, out], or [B, N, out] for a single net: the encoding is added to every batch entry, and the
    result has its shape and dtype.

    Features are computed in float32 at least, whatever the dtype of the weights. Under autocast weights and biases
    are taken in autocast's dtype, unless they are float64.

    impl: "reference" is the eager specification; "bmm" a chain of `torch.baddbmm`; "compile" that chain through
    `torch.compile`; "triton" one fused kernel (float32, bfloat16 or float16, widths to 256, 1024 outputs, no gradient
    to positions); "auto" is "triton" on a GPU where that can do the call, and else "bmm", on a CPU a few nets at a time
    where there are several and nothing is differentiated.
    Raises ValueError, in one sentence and before any computation, for what doesn't fit. Positions on a GPU are not
    looked at, since reading them would wait for it: one that is not finite makes its own row NaN.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}.")
    check_call(positions, frequencies, weights, biases, features, activation, add_to)
    device = positions.device.type
    # meta has no autocast to ask for, and float64 is none of its dtypes
    if device != "meta" and weights[0].dtype in DTYPES and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        weights, biases = [weight.to(dtype) for weight in weights], [bias.to(dtype) for bias in biases]
    chosen = _chosen(impl, positions, frequencies, weights, add_to)
    compute = _IMPLEMENTATIONS[chosen]
    if impl == "auto" and device == "cpu" and weights[0].shape[0] > 1:
        given = (positions, frequencies, *weights, *biases, *(() if add_to is None else (add_to,)))
        compute = blocked_chain if undifferentiated(given) else compute
    return compute(positions, frequencies, weights, biases, features=features, activation=activation, add_to=add_to)


def _chosen(
    impl: Implementation, positions: Tensor, frequencies: Tensor, weights: Sequence[Tensor], add_to: Tensor | None
) -> Implementation:
    """The implementation that does the call; raises ValueError where the one asked for can't."""
    if impl == "auto" and not positions.is_cuda:
        return "bmm"
    if impl == "compile" and not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise ValueError("impl 'compile' can't be called inside torch.func's transformations; compile what they give.")
    if impl not in ("auto", "triton"):
        return impl
    refusal = triton_refusal(positions, frequencies, weights, add_to)
    if refusal is not None and impl == "triton":
        raise ValueError(refusal)
    return "triton" if refusal is None else "bmm"


def bmm_chain(
    positions: Tensor,
    frequencies: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    features: str,
    activation: str,
    add_to: Tensor | None,
) -> Tensor:
    """`reference_positional_mlp` with each layer as one `torch.baddbmm`."""
    exact = feature_dtype(positions, frequencies, weights[0])
    state = FEATURES[features](positions.to(exact), frequencies.to(exact)).to(weights[0].dtype)
    state = state.expand(weights[0].shape[0], *state.shape[-2:])  # [G, N, inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        state = ACTIVATIONS[activation](affine(state, weight, bias))  # [G, N, width]
    return add_encoding(affine(state, weights[-1], biases[-1]), add_to)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """The chain through the compiler, whose import alone takes a second."""
    return torch.compile(bmm_chain, fullgraph=True)


def compiled_chain(*arguments: Tensor | Sequence[Tensor], **options: str | Tensor | None) -> Tensor:
    """`bmm_chain`, compiled when it is first asked for; where a compiler is at work already, its part of that graph."""
    chain: Callable[..., Tensor] = bmm_chain if torch.compiler.is_compiling() else _compiled()
    return chain(*arguments, **options)


_IMPLEMENTATIONS: dict[Implementation, Callable[..., Tensor]] = {
    "reference": reference_positional_mlp,
    "bmm": bmm_chain,
    "compile": compiled_chain,
    "triton": triton_positional_mlp,
}
