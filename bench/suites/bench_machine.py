"""The machine's own matmul and copy rates: upper limits on the speed of everything else."""

import torch
from torch import Tensor

from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite

_ON_GPU = torch.cuda.is_available()
_DEVICE = "cuda" if _ON_GPU else "cpu"
_DTYPE = torch.bfloat16 if _ON_GPU else torch.float32
_SIDE = 8192 if _ON_GPU else 1024
_VALUES = 2**28 if _ON_GPU else 2**24
"""How many float32 values are copied: more than any cache holds."""


def _cases() -> list[Case]:
    moved = 3.0 * _SIDE**2 * _DTYPE.itemsize
    return [
        Case("matmul", f"{_SIDE}×{_SIDE} {_DTYPE}".replace("torch.", ""), flop=2.0 * _SIDE**3, bytes=moved, quick=True),
        Case("copy", f"{_VALUES * 4 / 2**20:.0f} MiB", bytes=2.0 * 4 * _VALUES, quick=True),
    ]


def _inputs(case: Case) -> tuple[Tensor, Tensor]:
    shape, dtype = ((_SIDE, _SIDE), _DTYPE) if case.operator == "matmul" else ((_VALUES,), torch.float32)
    generator = torch.Generator(_DEVICE).manual_seed(0)
    return tuple(torch.randn(shape, device=_DEVICE, generator=generator).to(dtype) for _ in range(2))  # type: ignore[return-value]


def _check(inputs: tuple[Tensor, Tensor], implementation: str, result: Tensor) -> str:
    return "" if bool(result.isfinite().all()) else "values that are not finite"


SUITE = Suite("machine", _cases, _inputs, _check, baseline="torch")


@SUITE.implementation("torch")
def _torch(inputs: tuple[Tensor, Tensor]) -> Call:
    a, b = inputs
    return (lambda: a @ b) if a.dim() == 2 else (lambda: b.copy_(a))
