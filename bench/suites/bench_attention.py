"""Measure attention beside its peers, with and without a bias that an MLP computes.

On a GPU it is measured in bfloat16 with 16k tokens a batch and 16 heads; on a CPU in float32 at small sizes. The bias
is the MLP's value for each distance, and its gradients go to the MLP's parameters. FLOP are 4·B·H·Lq·Lk·D forward, half
of it if causal, 2.5 times that backward.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as compiler_config
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite
from trans4init.bench.suites.accuracy import rms_complaint
from trans4init.bench.suites.requirements import needs_gpu, needs_package
from trans4init.kernels.attention import RelativeBias, attention

# Otherwise a backward pass of torch.compile may overwrite its saved tensors, and can't run a second time.
compiler_config.donated_buffer = False
_ON_GPU = torch.cuda.is_available()
_DEVICE, _DTYPE = ("cuda", torch.bfloat16) if _ON_GPU else ("cpu", torch.float32)
_SHAPES = (
    [(16384 // length, 16, length, dim) for length in (8192, 2048) for dim in (128, 64)]
    if _ON_GPU
    else [(12, 4, 64, 32), (1, 8, 512, 64), (1, 8, 256, 64), (1, 4, 1024, 32)]
)
"""Batch, heads, length, head dim. The first two are the quick cases."""
_LONG = (1, 16, 131_072, 128)
"""Batch, heads, length, head dim of the long case: its memory shows that the bias takes linear memory."""
_HIDDEN = 32
"""Hidden units of the MLP that computes the bias."""
_TOLERANCE = 2e-2 if _ON_GPU else 1e-5
"""Largest RMS error over the RMS of the float32 specification: a few units of bfloat16's precision, or float32's."""

FORWARD, BACKWARD, STEP, LONG = "attention forward", "attention backward", "attention step", "attention step at 128k"
_PASSES = (FORWARD, BACKWARD, STEP)
_MLP = ("dW1", "db1", "dW2")
"""Gradients of the MLP's parameters. Its last bias shifts all scores of a row alike, so that its gradient is 0."""
_FLOP = {FORWARD: 1.0, BACKWARD: 2.5, STEP: 3.5, LONG: 3.5}
_MATRICES = {FORWARD: 4, BACKWARD: 7, STEP: 8, LONG: 8}
"""How many tensors of q's size must move. Forward: q, k, v are read, the output is written. Backward: q, k, v and the
upstream gradient are read, three gradients written. A step also writes the output."""
_ENDS = 64
"""How many of the last positions of the long case are compared with the specification: in a causal model the gradients
of the last keys and values come from the last queries alone."""


@dataclass(frozen=True)
class _Inputs:
    operator: str
    q: Tensor
    k: Tensor
    v: Tensor
    mlp: nn.Sequential
    causal: bool
    upstream: Tensor

    def table(self) -> RelativeBias:
        """Return the MLP's values as a table of distances."""
        length = self.q.shape[-2]
        distance = torch.arange(2 * length - 1, device=_DEVICE, dtype=torch.float32).sub(length - 1).div(length)
        return RelativeBias(self.mlp(distance[:, None]).T.contiguous())

    def every_pair(self) -> Tensor:
        """Return the MLP's value for every pair of positions, [1, H, L, L]."""
        position = torch.arange(self.q.shape[-2], device=_DEVICE, dtype=torch.float32) / self.q.shape[-2]
        values: Tensor = self.mlp((position[:, None] - position)[..., None])
        return values.permute(2, 0, 1)[None]


def _cases() -> list[Case]:
    cases = [_case(operator, *shape, causal) for shape in _SHAPES for causal in (True, False) for operator in _PASSES]
    return [*cases, _case(LONG, *_LONG, True)] if _ON_GPU else cases


def _case(operator: str, batch: int, heads: int, length: int, dim: int, causal: bool) -> Case:
    return Case(
        operator,
        f"B={batch} H={heads} L={length} D={dim} {'causal' if causal else 'full'}",
        {"batch": batch, "heads": heads, "length": length, "head_dim": dim, "causal": int(causal)},
        flop=4 * batch * heads * length**2 * dim * (0.5 if causal else 1.0) * _FLOP[operator],
        bytes=float(batch * heads * length * dim * _DTYPE.itemsize * _MATRICES[operator]),
        counts_prepared=operator == BACKWARD,  # the values that the forward pass saved
        quick=operator == STEP and causal and (batch, heads, length, dim) in _SHAPES[:2],
    )


def _inputs(case: Case) -> _Inputs:
    generator = torch.Generator(_DEVICE).manual_seed(0)
    shape = tuple(case.shape[name] for name in ("batch", "heads", "length", "head_dim"))

    def draw() -> Tensor:
        return torch.randn(shape, device=_DEVICE, dtype=torch.float32, generator=generator).to(_DTYPE)

    torch.manual_seed(0)
    layers = (nn.Linear(1, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, case.shape["heads"]))
    q, k, v = (draw().requires_grad_() for _ in range(3))
    return _Inputs(case.operator, q, k, v, nn.Sequential(*layers).to(_DEVICE), bool(case.shape["causal"]), draw())


def _check(inputs: _Inputs, implementation: str, result: Tensor | tuple[Tensor, ...]) -> str:
    """Compare the output, or every gradient including those of the MLP's parameters, with the float32 specification."""
    tensors = result if isinstance(result, tuple) else (result,)
    biased = _is_biased(implementation)
    if inputs.operator == LONG:
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            return "values that are not finite"
        tensors, expected = tuple(tensor[..., -_ENDS:, :] for tensor in tensors[:3]), _specified_ends(inputs, biased)
    elif inputs.operator == FORWARD:
        expected = [_specified_value(inputs, biased)]
    else:
        expected = _specified(inputs, biased=biased)
    names = ("out" if len(tensors) == 1 else "dq", "dk", "dv", *_MLP)
    for name, tensor, right in zip(names, tensors, expected, strict=False):
        allowed = _TOLERANCE if name not in _MLP else 3 * _TOLERANCE  # sums over all pairs, whose terms cancel
        if complaint := rms_complaint(tensor, right, allowed, name):
            return complaint
    return ""


def _heads(inputs: _Inputs) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Yield queries, keys and values of one batch entry and head at a time, [1, 1, L, D] float32, to save memory."""
    batch, heads = inputs.q.shape[:2]
    for entry, head in itertools.product(range(batch), range(heads)):
        at = slice(entry, entry + 1), slice(head, head + 1)
        yield *at, [leaf.detach()[at].float().requires_grad_() for leaf in (inputs.q, inputs.k, inputs.v)]


@torch.no_grad()
def _specified_value(inputs: _Inputs, biased: bool) -> Tensor:
    out, table = torch.empty_like(inputs.q, dtype=torch.float32), inputs.table().table
    for entry, head, (q, k, v) in _heads(inputs):
        bias = RelativeBias(table[head]) if biased else None
        out[entry, head] = attention(q, k, v, bias=bias, causal=inputs.causal, impl="reference")
    return out


def _specified_ends(inputs: _Inputs, biased: bool) -> list[Tensor]:
    """Return the gradients of the last queries, keys and values of a causal case."""
    length, table = inputs.q.shape[-2], inputs.table().table.detach()
    gradients = [torch.empty_like(inputs.q[..., -_ENDS:, :], dtype=torch.float32) for _ in range(3)]
    for entry, head, (q, k, v) in _heads(inputs):
        last = q.detach()[..., -_ENDS:, :].requires_grad_()
        bias = RelativeBias(table[head, length - _ENDS :]) if biased else None  # for distances from the last queries
        out = attention(last, k, v, bias=bias, causal=True, impl="reference")
        upstream = inputs.upstream[entry, head][..., -_ENDS:, :].float()
        for whole, part in zip(gradients, torch.autograd.grad(out, [last, k, v], upstream), strict=True):
            whole[entry, head] = part[..., -_ENDS:, :]
    return gradients


def _specified(inputs: _Inputs, *, biased: bool) -> list[Tensor]:
    """Return the gradients of queries, keys and values, and with a bias those of the MLP's parameters."""
    to_inputs = [torch.empty_like(inputs.q, dtype=torch.float32) for _ in range(3)]
    table = inputs.table().table
    to_table = torch.zeros_like(table)
    for entry, head, leaves in _heads(inputs):
        row = table.detach()[head].requires_grad_()
        out = attention(*leaves, bias=RelativeBias(row) if biased else None, causal=inputs.causal, impl="reference")
        upstream = inputs.upstream[entry, head].float()
        gradients = torch.autograd.grad(out, [*leaves, row] if biased else leaves, upstream)
        for whole, part in zip(to_inputs, gradients, strict=False):
            whole[entry, head] = part
        if biased:
            to_table[head] += gradients[3]
    if not biased:
        return to_inputs
    return [*to_inputs, *torch.autograd.grad(table, list(inputs.mlp.parameters()), to_table)]


def _is_biased(implementation: str) -> bool:
    return "bias" in implementation


SUITE = Suite("attention", _cases, _inputs, _check, baseline="eager table, bias")


def _passes(inputs: _Inputs, forward: Callable[[], Tensor], *, biased: bool) -> Call:
    """Make the operator's call: the forward pass, the backward pass of a graph made once, or both."""
    leaves = [inputs.q, inputs.k, inputs.v, *(inputs.mlp.parameters() if biased else ())]
    if inputs.operator == FORWARD:
        return torch.no_grad()(forward)
    if inputs.operator == BACKWARD:
        out = forward()
        return lambda: torch.autograd.grad(out, leaves, inputs.upstream, retain_graph=True)
    return lambda: torch.autograd.grad(forward(), leaves, inputs.upstream)


def _declare(
    name: str,
    impl: str,
    *,
    gpu: bool = False,
    operators: tuple[str, ...] = _PASSES,
    bias: Callable[[_Inputs], Any] | None = None,
    **options: Any,
) -> None:
    """Declare our function with an implementation, with a bias or without."""

    def prepare(inputs: _Inputs) -> Call:
        if gpu:
            needs_gpu()

        def forward() -> Tensor:
            arguments: Any = {"causal": inputs.causal, "impl": impl, "bias": bias(inputs) if bias else None} | options
            out: Tensor = attention(inputs.q, inputs.k, inputs.v, **arguments)
            return out

        return _passes(inputs, forward, biased=bias is not None)

    SUITE.implementation(name, operators=operators)(prepare)


_declare("eager table, bias", "reference", bias=_Inputs.table)
_declare("eager full MLP, bias", "reference", bias=_Inputs.every_pair)
_declare("auto, bias", "auto", bias=_Inputs.table)
_declare("sdpa with a mask, bias", "sdpa", bias=_Inputs.table)
_declare("triton, bias", "triton", gpu=True, operators=(*_PASSES, LONG), bias=_Inputs.table)
_declare(
    "triton, bias, deterministic", "triton", gpu=True, operators=(BACKWARD,), bias=_Inputs.table, deterministic=True
)
# On a CPU FlexAttention has no backward pass, and its unfused form is much slower than the compiled one.
_declare("flex compiled, bias", "flex", gpu=True, bias=_Inputs.table)
_declare("auto", "auto")
_declare("triton", "triton", gpu=True)
_declare("flex compiled", "flex", gpu=True)


def _declare_backend(name: str, backend: SDPBackend, *, gpu: bool) -> None:
    """Declare PyTorch's own attention with one of its backends."""

    def prepare(inputs: _Inputs) -> Call:
        if gpu:
            needs_gpu()

        def forward() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, is_causal=inputs.causal)

        return _passes(inputs, forward, biased=False)

    SUITE.implementation(f"sdpa {name}", operators=_PASSES)(prepare)


_declare_backend("flash", SDPBackend.FLASH_ATTENTION, gpu=False)
_declare_backend("cudnn", SDPBackend.CUDNN_ATTENTION, gpu=True)
_declare_backend("efficient", SDPBackend.EFFICIENT_ATTENTION, gpu=True)
_declare_backend("math", SDPBackend.MATH, gpu=False)


@SUITE.implementation("flash-attn", operators=_PASSES)
def _flash_attn(inputs: _Inputs) -> Call:
    needs_gpu()
    needs_package("flash_attn")
    from flash_attn import flash_attn_func

    q, k, v = (leaf.transpose(1, 2) for leaf in (inputs.q, inputs.k, inputs.v))
    return _passes(inputs, lambda: flash_attn_func(q, k, v, causal=inputs.causal).transpose(1, 2), biased=False)


@SUITE.implementation("xFormers", operators=_PASSES)
def _xformers(inputs: _Inputs) -> Call:
    needs_gpu()
    needs_package("xformers")
    from xformers import ops

    mask = ops.LowerTriangularMask() if inputs.causal else None
    q, k, v = (leaf.transpose(1, 2) for leaf in (inputs.q, inputs.k, inputs.v))
    attend = ops.memory_efficient_attention
    return _passes(inputs, lambda: attend(q, k, v, attn_bias=mask).transpose(1, 2), biased=False)
