"""Measure the batched positional MLP beside a loop, vmap, batched matrix products and torch.compile.

Operators: `positional MLP`, forward or with its backward pass, for many nets at once; `encoder + add`, one net's values
added to a batch of embeddings. FLOP are those of the matrices, 2·in·out a position; bytes: weights and outputs once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite
from trans4init.bench.suites.accuracy import rms_complaint
from trans4init.bench.suites.requirements import needs_gpu
from trans4init.kernels.availability import UnavailableError
from trans4init.kernels.positional_mlp import FEATURES, positional_mlp

_ON_GPU = torch.cuda.is_available()
_DEVICE = "cuda" if _ON_GPU else "cpu"
_TOLERANCE = 1e-3 if _ON_GPU else 2e-5
"""Largest RMS error over the RMS of the float64 specification; on a GPU matrix products may use TF32."""
_NETS_AT_ONCE = 32
"""How many nets the specification computes at once, to save memory."""

FORWARD, BOTH = "positional MLP", "positional MLP, forward + backward"
ADDED, ADDED_BOTH = "encoder + add", "encoder + add, forward + backward"


@dataclass(frozen=True)
class _Nets:
    """G nets with random parameters and shared positions."""

    operator: str
    features: str
    positions: Tensor
    frequencies: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    state: Tensor | None
    upstream: Tensor

    def values(self, impl: str, **options: Tensor) -> Tensor:
        """Return the nets' values, [G, N, outputs]; with `add_to` the sum of both."""
        arguments: Any = {"features": self.features, "impl": impl} | options
        return positional_mlp(self.positions, self.frequencies, self.weights, self.biases, **arguments)

    def leaves(self) -> list[Tensor]:
        """Return the parameters that the backward pass computes gradients of."""
        return [*self.weights, *self.biases]


_SHAPES: list[tuple[str, int, int, int, tuple[int, ...], int]] = (
    # features, frequencies, nets, positions, hidden, outputs
    [("fourier", 16, 768, 16384, (32,), 16)]
    if _ON_GPU
    else [("log", 1, 64, 512, (64,), 1), ("fourier", 16, 64, 512, (64,), 16), ("fourier", 32, 64, 512, (64, 64), 64)]
)
_ENCODER = (32, 4096, 256, 512) if _ON_GPU else (8, 512, 64, 128)
"""Batch, length, hidden width, model width."""


def _cases() -> list[Case]:
    cases = []
    for operator in (FORWARD, BOTH):
        for index, (features, count, nets, positions, hidden, outputs) in enumerate(_SHAPES):
            widths = [count * (2 if features == "fourier" else 1), *hidden, outputs]
            products = sum(i * o for i, o in pairwise(widths))
            moved = 4.0 * nets * (products + positions * outputs)
            size_text = f"{nets} nets × {positions} positions, {features} {'-'.join(map(str, widths))}"
            cases.append(
                Case(
                    operator,
                    size_text,
                    {"shape": index, "nets": nets, "positions": positions},
                    flop=2.0
                    * nets
                    * positions
                    * (products if operator == FORWARD else 3 * products - widths[0] * widths[1]),
                    bytes=moved * (2 if operator == BOTH else 1),
                    quick=operator == FORWARD and index == len(_SHAPES) // 2,
                )
            )
    batch, length, inner, width = _ENCODER
    size_text = f"B={batch} L={length} d={width}, hidden {inner}"
    moved = 2.0 * 4 * batch * length * width  # embeddings are read and written; backward their gradient is passed on
    first, second, sums = 2.0 * length * 64 * inner, 2.0 * length * inner * width, float(batch * length * width)
    both = 2 * first + 3 * second + 2 * sums  # no gradient goes to the features
    cases.append(Case(ADDED, size_text, {"length": length}, flop=first + second + sums, bytes=moved, quick=True))
    return [*cases, Case(ADDED_BOTH, size_text, {"length": length}, flop=both, bytes=1.5 * moved)]


def _inputs(case: Case) -> _Nets:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(_DEVICE)

    batch, length, inner, width = _ENCODER
    added = case.operator in (ADDED, ADDED_BOTH)
    shape = ("fourier", 32, 1, length, (inner,), width) if added else _SHAPES[case.shape["shape"]]
    features, count, nets, positions, hidden, outputs = shape
    widths = [count * (2 if features == "fourier" else 1), *hidden, outputs]
    return _Nets(
        case.operator,
        features,
        torch.arange(positions, dtype=torch.float32, device=_DEVICE),
        torch.rand(count, generator=generator).to(_DEVICE),
        [(draw(nets, i, o) / i**0.5).requires_grad_() for i, o in pairwise(widths)],
        [draw(nets, o).requires_grad_() for o in widths[1:]],
        draw(batch, length, width) if added else None,
        draw(batch, length, width) if added else draw(nets, positions, outputs),
    )


def _check(nets: _Nets, implementation: str, result: Tensor | tuple[Tensor, ...]) -> str:
    """Compare all nets' values, or the gradients of all weights and biases, with the float64 specification."""
    tensors = result if isinstance(result, tuple) else (result,)
    expected, layers = _specified(nets), len(nets.weights)
    names = ["values"] if len(expected) == 1 else [f"d{kind}{n + 1}" for kind in "Wb" for n in range(layers)]
    if len(tensors) != len(expected):
        tensors = _stacked(tensors, layers)
    for name, tensor, right in zip(names, tensors, expected, strict=True):
        if tensor.shape != right.shape:
            return f"{name} of shape {tuple(tensor.shape)}, not {tuple(right.shape)}"
        allowed = _TOLERANCE if name == "values" else 2 * _TOLERANCE  # gradients carry the errors of two passes
        if complaint := rms_complaint(tensor, right, allowed, name):
            return complaint
    return ""


def _specified(nets: _Nets) -> list[Tensor]:
    """Return the values, or the gradients of weights and biases, by the specification in float64."""
    pieces: list[tuple[Tensor, ...]] = []
    arguments: Any = {"features": nets.features, "impl": "reference"}
    for start in range(0, len(nets.weights[0]), _NETS_AT_ONCE):
        part = slice(start, start + _NETS_AT_ONCE)
        leaves = [leaf.detach()[part].double().requires_grad_() for leaf in nets.leaves()]
        weights, biases = leaves[: len(nets.weights)], leaves[len(nets.weights) :]
        out = positional_mlp(nets.positions.double(), nets.frequencies.double(), weights, biases, **arguments)
        upstream = nets.upstream[part]
        if nets.state is not None:
            out, upstream = nets.state.double() + out, nets.upstream
        both = nets.operator in (BOTH, ADDED_BOTH)
        pieces.append(torch.autograd.grad(out, leaves, upstream.double()) if both else (out.detach(),))
    return [torch.cat(same) for same in zip(*pieces, strict=True)]


def _stacked(gradients: tuple[Tensor, ...], layers: int) -> tuple[Tensor, ...]:
    """Stack the gradients of separate modules, each layer's [out, in] weight and bias, as if of all nets at once."""
    weights = [torch.stack(gradients[2 * layer :: 2 * layers]).transpose(1, 2) for layer in range(layers)]
    return (*weights, *(torch.stack(gradients[2 * layer + 1 :: 2 * layers]) for layer in range(layers)))


SUITE = Suite("positional-mlp", _cases, _inputs, _check, baseline="bmm")


def _call(nets: _Nets, forward: Callable[[], Tensor], leaves: list[Tensor] | None = None) -> Call:
    """Make the operator's call: the values alone, or both passes."""
    if nets.operator not in (BOTH, ADDED_BOTH):

        def values() -> Tensor:
            with torch.no_grad():
                return forward()

        return values

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), leaves or nets.leaves(), nets.upstream)

    return both


def _ours(nets: _Nets, impl: str) -> Call:
    state = nets.state
    if state is None:
        return _call(nets, lambda: nets.values(impl))
    return _call(nets, lambda: state + nets.values(impl))


@SUITE.implementation("bmm")
def _bmm(nets: _Nets) -> Call:
    return _ours(nets, "bmm")


@SUITE.implementation("auto")
def _auto(nets: _Nets) -> Call:
    return _ours(nets, "auto")


@SUITE.implementation("compile")
def _compile(nets: _Nets) -> Call:
    call = _ours(nets, "compile")
    try:
        call()
    except UnavailableError as error:
        raise MissingError(str(error)) from error
    return call


@SUITE.implementation("triton")
def _triton(nets: _Nets) -> Call:
    needs_gpu()
    return _ours(nets, "triton")


@SUITE.implementation("triton, add_to", operators=(ADDED, ADDED_BOTH))
def _triton_add_to(nets: _Nets) -> Call:
    needs_gpu()
    return _call(nets, lambda: nets.values("triton", add_to=_state(nets)))


@SUITE.implementation("auto, add_to", operators=(ADDED, ADDED_BOTH))
def _auto_add_to(nets: _Nets) -> Call:
    return _call(nets, lambda: nets.values("auto", add_to=_state(nets)))


@SUITE.implementation("vmap", operators=(FORWARD, BOTH))
def _vmap(nets: _Nets) -> Call:
    arguments: Any = {"features": nets.features, "impl": "reference"}

    def one_net(weights: list[Tensor], biases: list[Tensor]) -> Tensor:
        single = ([tensor[None] for tensor in tensors] for tensors in (weights, biases))
        return positional_mlp(nets.positions, nets.frequencies, *single, **arguments)[0]

    return _call(nets, lambda: torch.func.vmap(one_net)(nets.weights, nets.biases))


@SUITE.implementation("bmm as a CUDA graph", operators=(FORWARD,), counts_memory=False)
def _graph(nets: _Nets) -> Call:
    needs_gpu()
    call = _ours(nets, "bmm")
    for _ in range(3):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out: Tensor = call()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


@SUITE.implementation("loop over nn.Sequential", operators=(FORWARD, BOTH))
def _loop(nets: _Nets) -> Call:
    count = nets.weights[0].shape[0]
    if count > 64:
        raise MissingError(f"a loop over {count} modules is too slow to be a peer")
    modules = [_sequential(nets, index) for index in range(count)]
    parameters: list[Tensor] = [parameter for module in modules for parameter in module.parameters()]
    return _call(nets, lambda: torch.stack([module(nets.positions) for module in modules]), parameters)


class _Features(nn.Module):
    def __init__(self, features: str, frequencies: Tensor) -> None:
        super().__init__()
        self.features, self.frequencies = features, frequencies

    def forward(self, positions: Tensor) -> Tensor:
        return FEATURES[self.features](positions, self.frequencies)


def _sequential(nets: _Nets, index: int) -> nn.Sequential:
    layers: list[nn.Module] = [_Features(nets.features, nets.frequencies)]
    for weight, bias in zip(nets.weights, nets.biases, strict=True):
        _, inputs, outputs = weight.shape
        linear = nn.Linear(inputs, outputs, device=weight.device)
        linear.weight.data, linear.bias.data = weight.detach()[index].T.contiguous(), bias.detach()[index].clone()
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1])


def _state(nets: _Nets) -> Tensor:
    assert nets.state is not None
    return nets.state
