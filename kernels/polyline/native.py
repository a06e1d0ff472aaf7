"""Evaluate a polyline in C, compiled once by this machine's compiler, kept in the user's cache, called by ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["MAX_PIECES", "native_polyline", "native_refusal"]

MAX_PIECES = 256
"""The most lines that native.c has room for; with far fewer, a bisection is already faster."""

_SOURCE = Path(__file__).with_name("native.c")
_VECTORS = {"AVX512": ("-mavx512f", "-mfma"), "AVX2": ("-mavx2", "-mfma")}
"""Compiler flags by the instruction set that PyTorch finds; on other processors the compiler gets none."""


class _UnavailableError(Exception):
    """The C code can't be compiled or loaded on this machine; the message says why, in a few words."""


def native_refusal() -> str | None:
    """Return why `native_polyline` can't be called on this machine, in a few words; None where it can."""
    library = _library()
    return library if isinstance(library, str) else None


def native_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Compute `reference_polyline` for float32 on a CPU and at most MAX_PIECES lines."""
    kinks, lines = kinks.float().contiguous(), lines.float().contiguous()
    if torch.is_grad_enabled() and inputs.requires_grad:
        value: Tensor = _Native.apply(inputs, kinks, lines)  # type: ignore[no-untyped-call]
        return value
    return _value(inputs, kinks, lines)


class _Native(torch.autograd.Function):
    """Calls the C code for the value."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, kinks, lines)
        return _value(inputs, kinks, lines)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        inputs, kinks, lines = ctx.saved_tensors
        return _differentiable_gradient(inputs, kinks, lines, upstream), None, None


class _NativeGradient(torch.autograd.Function):
    """Calls the C code for the gradient, which is linear in `upstream` and constant in the inputs between kinks."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kinks: Tensor, lines: Tensor, upstream: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, kinks, lines)
        return _gradient(inputs, kinks, lines, upstream)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, None, None, Tensor]:
        inputs, kinks, lines = ctx.saved_tensors
        return None, None, None, _differentiable_gradient(inputs, kinks, lines, upstream)


def _differentiable_gradient(inputs: Tensor, kinks: Tensor, lines: Tensor, upstream: Tensor) -> Tensor:
    """Return the gradient of the inputs, with a graph of its own only where one is asked for."""
    if not torch.is_grad_enabled():
        return _gradient(inputs, kinks, lines, upstream)
    gradient: Tensor = _NativeGradient.apply(inputs, kinks, lines, upstream)  # type: ignore[no-untyped-call]
    return gradient


def _value(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    if lines.shape[1] == 1:
        return inputs * lines[0, 0] + lines[1, 0]
    inputs = inputs.contiguous()
    values = torch.empty_like(inputs)
    slopes, pieces = lines.data_ptr(), lines.shape[1]
    _loaded().polyline_value(
        inputs.data_ptr(),
        values.data_ptr(),
        inputs.numel(),
        kinks.data_ptr(),
        slopes,
        slopes + pieces * lines.itemsize,
        pieces,
        torch.get_num_threads(),
    )
    return values


def _gradient(inputs: Tensor, kinks: Tensor, lines: Tensor, upstream: Tensor) -> Tensor:
    inputs, upstream = inputs.contiguous(), upstream.contiguous()
    gradients = torch.empty_like(inputs)
    _loaded().polyline_gradient(
        inputs.data_ptr(),
        upstream.data_ptr(),
        gradients.data_ptr(),
        inputs.numel(),
        kinks.data_ptr(),
        lines.data_ptr(),
        lines.shape[1],
        torch.get_num_threads(),
    )
    return gradients


def _loaded() -> ctypes.CDLL:
    library = _library()
    assert not isinstance(library, str)  # callers have asked `native_refusal`
    return library


@functools.cache
def _library() -> ctypes.CDLL | str:
    """Return the loaded C code, or why there is none; each process compiles or loads it once."""
    try:
        library = ctypes.CDLL(str(_built()))
    except (_UnavailableError, OSError) as error:
        return str(error)
    pointer, size, whole = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    library.polyline_value.argtypes = [pointer, pointer, size, pointer, pointer, pointer, size, whole]
    library.polyline_gradient.argtypes = [pointer, pointer, pointer, size, pointer, pointer, size, whole]
    library.polyline_value.restype = library.polyline_gradient.restype = None
    return library


def _built() -> Path:
    """Return the shared library, compiling it unless the same source was compiled for this processor before."""
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "")
    if not compiler:
        raise _UnavailableError("this machine has no C compiler (cc, gcc or clang)")
    threads = () if sys.platform == "darwin" else ("-fopenmp",)  # Apple's compiler has no OpenMP
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
    command = [*compiler.split(), "-O3", "-shared", "-fPIC", *vectors, *threads]
    source = _SOURCE.read_bytes()
    identity = repr((source, command, platform.machine())).encode()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trans4init"
    library = folder / f"polyline-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # so that other processes never see half a file
        compiled = Path(scratch) / library.name
        try:
            subprocess.run([*command, str(_SOURCE), "-o", str(compiled)], capture_output=True, check=True, text=True)
        except subprocess.CalledProcessError as error:
            errors = [line for line in error.stderr.splitlines() if "error" in line] or ["it gives no reason"]
            raise _UnavailableError(f"{compiler} doesn't compile native.c: {errors[0][:200]}") from None
        os.replace(compiled, library)
    return library
