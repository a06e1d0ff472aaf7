"""The polyline in C: compiled once by the machine's own compiler, kept in the user's cache, called through ctypes."""

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
"""As in native.c; a bisection is faster long before."""

_SOURCE = Path(__file__).with_name("native.c")
_VECTORS = {"AVX512": ("-mavx512f", "-mfma"), "AVX2": ("-mavx2", "-mfma")}
"""What the compiler may use where PyTorch finds it; other processors have one instruction set, or none of these."""


class _UnavailableError(Exception):
    """Why the C code can't be had on this machine, in a few words."""


def native_refusal() -> str | None:
    """Why `native_polyline` can't be called on this machine, in a few words; None where it can."""
    found = _library()
    return found if isinstance(found, str) else None


def native_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """`reference_polyline` for float32 on a CPU and at most MAX_PIECES lines; not to be differentiated twice."""
    kinks, lines = kinks.float().contiguous(), lines.float().contiguous()
    if torch.is_grad_enabled() and inputs.requires_grad:
        value: Tensor = _Native.apply(inputs, kinks, lines)  # type: ignore[no-untyped-call]
        return value
    return _value(inputs, kinks, lines)


class _Native(torch.autograd.Function):
    """One pass forward, one pass back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, kinks, lines)
        return _value(inputs, kinks, lines)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        inputs, kinks, lines = ctx.saved_tensors
        return _gradient(inputs, kinks, lines, upstream), None, None


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
    found = _library()
    assert not isinstance(found, str)  # who calls has asked `native_refusal`
    return found


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled code, or why there is none; looked for once in a process."""
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
    """The shared library, compiled where this source hasn't been compiled for this processor before."""
    compiler = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "")
    if not compiler:
        raise _UnavailableError("no C compiler is here (cc, gcc or clang)")
    threads = () if sys.platform == "darwin" else ("-fopenmp",)  # Apple's compiler has no OpenMP
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
    command = [*compiler.split(), "-O3", "-shared", "-fPIC", *vectors, *threads]
    source = _SOURCE.read_bytes()
    words = repr((source, command, platform.machine())).encode()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trans4init"
    library = folder / f"polyline-{hashlib.sha256(words).hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:  # whole or not there, whoever else compiles it now
        made = Path(own) / library.name
        try:
            subprocess.run([*command, str(_SOURCE), "-o", str(made)], capture_output=True, check=True, text=True)
        except subprocess.CalledProcessError as error:
            said = [line for line in error.stderr.splitlines() if "error" in line] or ["it says nothing"]
            raise _UnavailableError(f"{compiler} doesn't compile native.c: {said[0][:200]}") from None
        os.replace(made, library)
    return library
