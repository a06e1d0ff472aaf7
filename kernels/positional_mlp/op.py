"""Evaluate many small networks of positions at once; `impl` says which code computes it."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trans4init.kernels.availability import DTYPES
from trans4init.kernels.differentiation import forward_mode, in_transformation
from trans4init.kernels.positional_mlp.blocked import affine, blocked_chain, undifferentiated
from trans4init.kernels.positional_mlp.checks import Implementation, check_call, triton_refusal
from trans4init.kernels.positional_mlp.reference import (
    ACTIVATIONS,
    FEATURES,
    add_encoding,
    feature_dtype,
    reference_positional_mlp,
)
from trans4init.kernels.positional_mlp.registration import fused_positional_mlp
from trans4init.kernels.torch_compile import compile_function

__all__ = ["positional_mlp"]


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
    """Evaluate G small networks of one scalar: features -> 1 to 3 hidden layers -> a linear last layer.

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
    to positions), interpreted on a CPU (slowly, for tests, without bfloat16); "auto" is "triton" on a GPU where that
    can do the call, and "bmm" otherwise, on a CPU a few nets at a time where there are several and nothing is
    differentiated.
    Raises ValueError, in one sentence, for what doesn't fit or can't be done here; before any computation, except that
    "compile" learns from `torch.compile` itself that it fails on this machine (`UnavailableError`). Positions on a GPU
    are not checked, since reading them would wait for the GPU: a position that is not finite makes its own row NaN.
    """
    check_call(positions, frequencies, weights, biases, features, activation, add_to, impl)
    device = positions.device.type
    # the meta device has no autocast, and autocast doesn't cast float64
    if device != "meta" and weights[0].dtype in DTYPES and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        weights, biases = [weight.to(dtype) for weight in weights], [bias.to(dtype) for bias in biases]
    chosen = _chosen(impl, positions, frequencies, weights, add_to)
    compute = _IMPLEMENTATIONS[chosen]
    if impl == "auto" and device == "cpu" and weights[0].shape[0] > 1:
        tensors = (positions, frequencies, *weights, *biases, *(() if add_to is None else (add_to,)))
        compute = blocked_chain if undifferentiated(tensors) else compute
    return compute(positions, frequencies, weights, biases, features=features, activation=activation, add_to=add_to)


def _chosen(
    impl: Implementation, positions: Tensor, frequencies: Tensor, weights: Sequence[Tensor], add_to: Tensor | None
) -> Implementation:
    """Return the implementation that does the call; raise ValueError where the one that was asked for can't."""
    if impl == "auto" and (forward_mode() or not positions.is_cuda):
        return "bmm"
    if impl == "compile" and in_transformation():
        raise ValueError(
            "impl 'compile' can't be called inside torch.func's transformations; compile the transformed function."
        )
    if impl == "compile" and forward_mode() and not torch.compiler.is_compiling():
        raise ValueError("impl 'compile' has no derivative in forward mode; 'reference' and 'bmm' have one.")
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
    """Compute `reference_positional_mlp` with each layer as one `torch.baddbmm`."""
    exact = feature_dtype(positions, frequencies, weights[0])
    state = FEATURES[features](positions.to(exact), frequencies.to(exact)).to(weights[0].dtype)
    state = state.expand(weights[0].shape[0], *state.shape[-2:])  # [G, N, inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        state = ACTIVATIONS[activation](affine(state, weight, bias))  # [G, N, width]
    return add_encoding(affine(state, weights[-1], biases[-1]), add_to)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """Made when it is first needed: the import of PyTorch's compiler alone takes a second."""
    return compile_function(bmm_chain)


def compiled_chain(*arguments: Tensor | Sequence[Tensor], **options: str | Tensor | None) -> Tensor:
    """Compute `bmm_chain` compiled; in a model that is being compiled, as a part of the model's graph.

    Raises UnavailableError where `torch.compile` fails on this machine.
    """
    chain: Callable[..., Tensor] = bmm_chain if torch.compiler.is_compiling() else _compiled()
    return chain(*arguments, **options)


_IMPLEMENTATIONS: dict[Implementation, Callable[..., Tensor]] = {
    "reference": reference_positional_mlp,
    "bmm": bmm_chain,
    "compile": compiled_chain,
    "triton": fused_positional_mlp,
}
