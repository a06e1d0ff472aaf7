"""Compile Triton kernels ahead of time, for GPUs that need not be there, and read what each kernel uses."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "CODE_OPTIONS",
    "SHARED_LIMIT",
    "Job",
    "Usage",
    "compile_job",
    "inner_loops",
    "run_command",
    "source_hash",
    "usage_of",
]

SHARED_LIMIT = {"sm_80": 166_912, "sm_86": 101_376, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}
"""Bytes of shared memory that a program may have (CUDA C++ Programming Guide, table 21; CDNA 3 ISA, section 2.1)."""

CODE_OPTIONS = {"enable_fp_fusion": True}
"""Options that all our kernels are compiled with, here and when they are launched; Triton's default changes between
versions."""


@dataclass(frozen=True)
class Job:
    """Describes one specialisation of a kernel for one GPU.

    types: of the arguments that are not constants, in Triton's notation. aligned: arguments that are multiples of 16.
    """

    target: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: Collection[str]
    warps: int
    stages: int
    registers: int | None = None
    """The most registers that the assembler may give a thread on an NVIDIA GPU; None leaves it to the assembler."""


@dataclass(frozen=True)
class Usage:
    """Says what a kernel uses: bytes of shared memory, registers per thread, bytes per thread on the stack.

    The stack (`spilled`) is where spilled registers lie.
    """

    shared: int
    registers: int
    spilled: int
    matrix: int
    """Matrix instructions in the assembly, including asynchronous ones."""
    wgmma: int
    """How many of the matrix instructions are Hopper's asynchronous ones."""


def compile_job(job: Job) -> Any:
    """Compile a kernel with Triton; needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = job.kernel.arg_names
    signature = {name: "constexpr" if name in job.constants else job.types[name] for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in names if name in job.aligned}
    constants = {name: value for name, value in job.constants.items() if name in names}
    amd = job.target.startswith("gfx")
    gpu = GPUTarget("hip", job.target, 64) if amd else GPUTarget("cuda", int(job.target.removeprefix("sm_")), 32)
    source = ASTSource(job.kernel, signature, constants, attributes)
    options: dict[str, Any] = {"num_warps": job.warps, "num_stages": job.stages, **CODE_OPTIONS}
    if job.registers is not None and not amd:
        options["maxnreg"] = job.registers
    return triton.compile(source, target=gpu, options=options)


def usage_of(compiled: Any) -> Usage:
    """Return registers, spills, shared memory and matrix instructions of a compiled kernel."""
    shared = int(compiled.metadata.shared)
    if "amdgcn" in compiled.asm:
        assembly = compiled.asm["amdgcn"]
        return Usage(
            shared,
            registers=_number(r"\.vgpr_count:\s+(\d+)", assembly),
            spilled=4 * _number(r"\.vgpr_spill_count:\s+(\d+)", assembly),
            matrix=assembly.count("v_mfma"),
            wgmma=0,
        )
    report = _cuobjdump(compiled.asm["cubin"], "-res-usage")
    ptx = compiled.asm["ptx"]
    return Usage(
        shared,
        registers=_number(r"REG:(\d+)", report),
        spilled=_number(r"STACK:(\d+)", report),
        matrix=sum(ptx.count(name) for name in ("wgmma.mma_async", "mma.sync", "tcgen05.mma")),
        wgmma=ptx.count("wgmma.mma_async"),
    )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"the compiler's output has no {pattern!r}: {text[:200]!r}")
    return int(match[1])


def _cuobjdump(binary: bytes, option: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout


def inner_loops(compiled: Any) -> list[Counter[str]]:
    """Count the instructions of each innermost loop in an NVIDIA GPU's machine code, loops in order.

    Instructions are named without modifiers, except for the function that MUFU computes. LDL and STL load and store
    spilled registers.
    """
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)(\.\w+)?(.*?);", re.MULTILINE)
    lines = line.findall(_cuobjdump(compiled.asm["cubin"], "-sass"))
    code = [(int(place, 16), name + kind * (name == "MUFU"), rest) for place, name, kind, rest in lines]
    jumps = [(re.search(r"0x([0-9a-f]+)", rest), end) for end, name, rest in code if name == "BRA"]
    loops = [(start, end) for target, end in jumps if target and (start := int(target[1], 16)) < end]
    inner = [
        loop
        for loop in loops
        if not any(loop != other and loop[0] <= other[0] and other[1] <= loop[1] for other in loops)
    ]
    return [Counter(name for place, name, _ in code if start <= place <= end) for start, end in sorted(inner)]


def source_hash(files: Sequence[Path]) -> str:
    """Hash the kernels' source, so that a table can be recognised as one of other kernels."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def run_command(
    module: str,
    names: Collection[str],
    build: Callable[[str], Any],
    measure: Callable[[str], Usage],
    sources: Sequence[Path],
    every: Collection[str] = (),
) -> None:
    """Run the command line of an operator's `aot_table`: write its table, or print what some kernels use or do.

    names: the kernels of the table. every: the names of all kernels, where the table holds only some.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description="Compile the shipped kernels, without a GPU."
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("table", nargs="?", type=Path, help="the JSON file to write, with what each kernel uses")
    task.add_argument("--sass", metavar="NAME", help="print inner loops' instructions, of kernels named NAME…")
    task.add_argument("--usage", metavar="NAME", help="print what kernels named NAME… use, also outside the table")
    arguments = parser.parse_args()
    if arguments.table is not None:
        write_table(names, measure, sources, arguments.table)
        return
    known = list(dict.fromkeys((*names, *every)))
    if arguments.usage is not None:
        _measured(_beginning(parser, known, arguments.usage), measure)
        return
    on_nvidia = [name for name in known if name.startswith("sm_")]
    for name in _beginning(parser, on_nvidia, arguments.sass):
        print(name)
        for loop in inner_loops(build(name)):
            print(f"  {loop.total()} instructions:", ", ".join(f"{count} {kind}" for kind, count in loop.most_common()))


def _beginning(parser: argparse.ArgumentParser, names: Collection[str], beginning: str) -> list[str]:
    """Return the names with this beginning; end the command with a sentence where there are none."""
    matching = [name for name in names if name.startswith(beginning)]
    if not matching:
        parser.error(f"no kernel's name begins with {beginning!r}; an example of a name is {min(names)!r}")
    return matching


def write_table(names: Collection[str], measure: Callable[[str], Usage], sources: Sequence[Path], path: Path) -> None:
    """Compile every name on all cores, print what each kernel uses and write the table, one row per line.

    Exits with a sentence, and writes nothing, if a kernel doesn't compile.
    """
    import triton

    rows = _measured(names, measure)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(asdict(row))}" for name, row in rows.items())
    head = json.dumps({"triton": triton.__version__, "source": source_hash(sources), "rows": {}})
    path.write_text(f"{head[:-2]}\n{lines}\n}}}}\n")


def _measured(names: Collection[str], measure: Callable[[str], Usage]) -> dict[str, Usage]:
    """Compile on all cores; print each row when it is there, in order."""
    rows: dict[str, Usage] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures = {name: pool.submit(measure, name) for name in names}
        for name, future in futures.items():
            if (error := future.exception()) is not None:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{name} doesn't compile: {str(error).splitlines()[0][:300]}")
            rows[name] = future.result()
            print(name, *(f"{value} {key}" for key, value in asdict(rows[name]).items()), sep=", ", flush=True)
    return rows
