"""Load and launch Triton kernels in two ways: compiled for tensors on a GPU, interpreted (slowly) for tensors on a CPU.

Triton decides when a kernel is decorated whether it will be compiled or interpreted, by the environment variable
TRITON_INTERPRET. Here each kernel file is loaded once for each way, so that both live in one process and nobody has to
set the variable. A process that does set it interprets on a GPU too.

An interpreted kernel can't call those functions of Triton that are themselves written in Triton (`tl.cdiv`, `tl.sum`,
`tl.zeros`, …), because Triton has decorated them for compilation. Kernels use builtins (`tl.reduce`, `tl.full`) and
functions of their own files instead.
"""

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from trans4init.kernels.ahead_of_time import CODE_OPTIONS

__all__ = ["KernelFiles", "interpretation"]


@dataclass(frozen=True)
class KernelFiles:
    """Names the files that hold an operator's Triton kernels: package and stems, each stem after those it imports."""

    package: str
    stems: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Where the files are."""
        folder = Path(__file__).parent / self.package.rpartition(".")[2]
        return [folder / f"{stem}.py" for stem in self.stems]

    def kernels(self, *, interpreted: bool) -> Mapping[str, Any]:
        """Return what the files define, by name: for interpretation, or as Triton decorates it in this process."""
        return _interpreted(self) if interpreted else _imported(self)

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        device: torch.device,
        arguments: Mapping[str, Any],
        *,
        warps: int,
        stages: int,
        **options: Any,
    ) -> None:
        """Run a kernel on tensors of `device`. warps, stages and options are the compiler's; a CPU needs none."""
        interpreted = device.type == "cpu"
        kernel = self.kernels(interpreted=interpreted)[name]
        if interpreted:
            with interpretation():
                kernel[grid](**arguments)
            return
        with torch.cuda.device(device):  # Triton launches on the current GPU, which need not be the tensors'
            kernel[grid](**arguments, num_warps=warps, num_stages=stages, **CODE_OPTIONS, **options)


@functools.cache
def _imported(files: KernelFiles) -> dict[str, Any]:
    modules = [importlib.import_module(f"{files.package}.{stem}") for stem in files.stems]
    return {name: value for module in modules for name, value in vars(module).items()}


@functools.cache
def _interpreted(files: KernelFiles) -> dict[str, Any]:
    _imported(
        files
    )  # first, since the copies import from these modules, which must not be decorated for interpretation
    copies: dict[str, Any] = {}
    with interpretation():
        for stem, path in zip(files.stems, files.paths, strict=True):
            copy = _load_copy(f"{files.package}.interpreted_{stem}", path)
            vars(copy).update({key: value for key, value in copies.items() if key in vars(copy) and key[:2] != "__"})
            copies |= vars(copy)
    return copies


def _load_copy(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def interpretation() -> Iterator[None]:
    """Make Triton interpret what is decorated and run inside."""
    import triton

    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = True
        yield
