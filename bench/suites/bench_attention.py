"""Attention, with and without a bias learned through an MLP, forward and backward, beside its peers.

On a GPU: bfloat16, 16k tokens a batch, 16 heads. On a CPU: float32 and small. A bias is what an MLP gives for each
distance; its backward pass goes to the MLP's parameters. FLOP are 4·B·H·Lq·Lk·D forward, half of it where causal, and
2.5 times that backward.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.bench.ledger import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite
from trans4init.kernels.attention import RelativeBias, attention

_ON_GPU = torch.cuda.is_available()
_DEVICE, _DTYPE = ("cuda", torch.bfloat16) if _ON_GPU else ("cpu", torch.float32)
_TOKENS, _HEADS = (16384, 16) if _ON_GPU else (1024, 4)
_LENGTHS = (2048, 8192) if _ON_GPU else (256, 1024)
_HEAD_DIMS = (64, 128) if _ON_GPU else (64,)
_HIDDEN = 32
_TOLERANCE = 2e-2 if _ON_GPU else 1e-5
"""RMS error over the RMS of the float32 specification: a few units of bfloat16's precision, of float32's on a CPU."""

PLAIN, PLAIN_BACKWARD = "attention", "attention backward"
BIASED, BIASED_BACKWARD = "biased attention", "biased attention backward"
_BIASED = (BIASED, BIASED_BACKWARD)
_BACKWARD = (PLAIN_BACKWARD, BIASED_BACKWARD)


@dataclass(frozen=True)
class _Inputs:
    operator: str
    q: Tensor
    k: Tensor
    v: Tensor
    mlp: nn.Sequential
    causal: bool
    upstream: Tensor

    def leaves(self) -> list[Tensor]:
        """What the backward pass goes to."""
        found = [self.q, self.k, self.v]
        return [*found, *self.mlp.parameters()] if self.operator in _BIASED else found

    def bias(self) -> RelativeBias | None:
        """The MLP's values as a table of distances, where the operator has a bias."""
        if self.operator not in _BIASED:
            return None
        length = self.q.shape[-2]
        distance = torch.arange(2 * length - 1, device=_DEVICE, dtype=torch.float32).sub(length - 1).div(length)
        return RelativeBias(self.mlp(distance[:, None]).T.contiguous())

    def full_bias(self) -> Tensor:
        """The MLP's value for every pair, [1, H, L, L]."""
        place = torch.arange(self.q.shape[-2], device=_DEVICE, dtype=torch.float32) / self.q.shape[-2]
        values: Tensor = self.mlp((place[:, None] - place)[..., None])
        return values.permute(2, 0, 1)[None]


def _cases() -> list[Case]:
    return [
        _case(operator, length, dim, causal)
        for operator in (PLAIN, BIASED, PLAIN_BACKWARD, BIASED_BACKWARD)
        for length in _LENGTHS
        for dim in _HEAD_DIMS
        for causal in (False, True)
    ]


def _case(operator: str, length: int, dim: int, causal: bool) -> Case:
    back = operator in _BACKWARD
    flop = 4 * _TOKENS * _HEADS * length * dim * (0.5 if causal else 1.0) * (2.5 if back else 1.0)
    size = _TOKENS * _HEADS * dim * _DTYPE.itemsize
    return Case(
        operator,
        f"L={length} D={dim} {'causal' if causal else 'full'}",
        {"length": length, "head_dim": dim, "causal": int(causal)},
        flop=flop,
        bytes=size * (8.0 if back else 4.0),  # q, k, v and out; backward also the upstream and three gradients
        tokens=_TOKENS,
        quick=length == _LENGTHS[0] and causal and operator in _BIASED,
    )


def _inputs(case: Case) -> _Inputs:
    generator = torch.Generator(_DEVICE).manual_seed(0)
    shape = (_TOKENS // case.shape["length"], _HEADS, case.shape["length"], case.shape["head_dim"])

    def draw() -> Tensor:
        return torch.randn(shape, device=_DEVICE, dtype=torch.float32, generator=generator).to(_DTYPE)

    with torch.random.fork_rng(devices=[0] if _ON_GPU else []):
        torch.manual_seed(0)
        mlp = nn.Sequential(nn.Linear(1, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HEADS)).to(_DEVICE)
    q, k, v = (draw().requires_grad_() for _ in range(3))
    return _Inputs(case.operator, q, k, v, mlp, bool(case.shape["causal"]), draw())


def _check(inputs: _Inputs, implementation: str, result: Tensor | tuple[Tensor, ...]) -> str:
    """Against the float32 specification on the batch's first entry: value, or the gradient of the queries."""
    q, k, v = (leaf.detach()[:1].float().requires_grad_() for leaf in (inputs.q, inputs.k, inputs.v))
    expected = attention(q, k, v, bias=inputs.bias(), causal=inputs.causal, impl="reference")
    if inputs.operator in _BACKWARD:
        [expected] = torch.autograd.grad(expected, [q], inputs.upstream[:1].float())
    found = (result[0] if isinstance(result, tuple) else result)[:1].float()
    error = ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()
    return "" if error <= _TOLERANCE else f"relative RMS error {error:.1e}, at most {_TOLERANCE:.0e} allowed"


SUITE = Suite("attention", _cases, _inputs, _check, baseline="reference")


def _call(inputs: _Inputs, forward: Callable[[], Tensor]) -> Call:
    """The pass that the operator is about; backward, the graph is kept and gone through again."""
    if inputs.operator not in _BACKWARD:

        def call() -> Tensor:
            with torch.no_grad():
                return forward()

        return call
    out = forward()
    return lambda: torch.autograd.grad(out, inputs.leaves(), inputs.upstream, retain_graph=True)


def _ours(inputs: _Inputs, impl: str, *, deterministic: bool = False) -> Call:
    arguments = (inputs.q, inputs.k, inputs.v)
    options = {"causal": inputs.causal, "impl": impl, "deterministic": deterministic}
    return _call(inputs, lambda: attention(*arguments, bias=inputs.bias(), **options))  # type: ignore[call-overload]


def _needs_gpu() -> None:
    if not _ON_GPU:
        raise MissingError("needs a GPU")


@SUITE.implementation("reference")
def _reference(inputs: _Inputs) -> Call:
    return _ours(inputs, "reference")


@SUITE.implementation("auto")
def _auto(inputs: _Inputs) -> Call:
    return _ours(inputs, "auto")


@SUITE.implementation("triton")
def _triton(inputs: _Inputs) -> Call:
    _needs_gpu()
    return _ours(inputs, "triton")


@SUITE.implementation("triton, deterministic", operators=_BACKWARD)
def _triton_deterministic(inputs: _Inputs) -> Call:
    _needs_gpu()
    return _ours(inputs, "triton", deterministic=True)


@SUITE.implementation("eager full MLP", operators=_BIASED)
def _full(inputs: _Inputs) -> Call:
    arguments = (inputs.q, inputs.k, inputs.v)
    return _call(inputs, lambda: attention(*arguments, bias=inputs.full_bias(), causal=inputs.causal, impl="reference"))


@SUITE.implementation("sdpa")
def _sdpa(inputs: _Inputs) -> Call:
    return _ours(inputs, "sdpa")


@SUITE.implementation("sdpa flash", operators=(PLAIN, PLAIN_BACKWARD))
def _sdpa_flash(inputs: _Inputs) -> Call:
    return _backend(inputs, SDPBackend.FLASH_ATTENTION)


@SUITE.implementation("sdpa cudnn", operators=(PLAIN, PLAIN_BACKWARD))
def _sdpa_cudnn(inputs: _Inputs) -> Call:
    _needs_gpu()
    return _backend(inputs, SDPBackend.CUDNN_ATTENTION)


def _backend(inputs: _Inputs, backend: SDPBackend) -> Call:
    def forward() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, is_causal=inputs.causal)

    return _call(inputs, forward)


@SUITE.implementation("flex, compiled")
def _flex(inputs: _Inputs) -> Call:
    _needs_gpu()  # on a CPU it has no backward pass, and its unfused form says nothing of its speed
    return _ours(inputs, "flex")


@SUITE.implementation("flash-attn", operators=(PLAIN, PLAIN_BACKWARD))
def _flash_attn(inputs: _Inputs) -> Call:
    _needs_gpu()
    _needs_package("flash_attn")
    from flash_attn import flash_attn_func

    q, k, v = (leaf.transpose(1, 2) for leaf in (inputs.q, inputs.k, inputs.v))
    return _call(inputs, lambda: flash_attn_func(q, k, v, causal=inputs.causal).transpose(1, 2))


@SUITE.implementation("xFormers", operators=(PLAIN, PLAIN_BACKWARD))
def _xformers(inputs: _Inputs) -> Call:
    _needs_gpu()
    _needs_package("xformers")
    from xformers import ops

    mask = ops.LowerTriangularMask() if inputs.causal else None
    q, k, v = (leaf.transpose(1, 2) for leaf in (inputs.q, inputs.k, inputs.v))
    return _call(inputs, lambda: ops.memory_efficient_attention(q, k, v, attn_bias=mask).transpose(1, 2))


def _needs_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise MissingError("is not installed")
