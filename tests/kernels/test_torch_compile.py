"""`impl="compile"` where the C++ compiler is missing or fails: one sentence in place of the compiler's log."""

import os
import subprocess
import sys

import pytest
import torch

from trans4init.kernels.torch_compile import compile_function

PROGRAM = """
import torch
from trans4init.kernels.availability import UnavailableError
from trans4init.kernels.polyline import polyline
from trans4init.kernels.positional_mlp import positional_mlp

net = [torch.ones(1, 2, 4), torch.ones(1, 4, 1)], [torch.ones(1, 4), torch.ones(1, 1)]
for call in (
    lambda: polyline(torch.ones(7), torch.zeros(1), torch.ones(2, 2), impl="compile"),
    lambda: positional_mlp(torch.ones(7), torch.ones(1), *net, impl="compile"),
):
    try:
        call()
    except UnavailableError as error:
        print(error)
"""
FAILING = """#!/bin/sh
case "$*" in *--version*|*-dumpversion*) echo "g++ (a test's) 13.2.0"; exit 0;; esac
echo "main.cpp: In function 'kernel':" >&2
echo "main.cpp:5:3: error: 'at::vec' has not been declared" >&2
echo "main.cpp:9:3: note: and much more" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("missing", "No working C++ compiler found"), ("failing", "error: 'at::vec' has not been declared")],
)
def test_both_operators_say_in_one_sentence_that_nothing_can_be_compiled_here(tmp_path, compiler, reason):
    """In a process of its own: the compiler is looked for once, and what was compiled before is kept."""
    (tmp_path / "failing").write_text(FAILING)
    (tmp_path / "failing").chmod(0o755)
    environment = {**os.environ, "CXX": str(tmp_path / compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PROGRAM]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    sentences = finished.stdout.splitlines()
    assert len(sentences) == 2
    for sentence in sentences:
        assert sentence.startswith("impl 'compile' can't be used on this machine")
        assert reason in sentence
        assert sentence.endswith("(environment variables CXX and ATEN_CPU_CAPABILITY).")


NARROWER = """
import torch
from trans4init.kernels.torch_compile import compile_function

x, w, b = (torch.linspace(-2, 2, n).reshape(shape) for n, shape in ((108, (2, 9, 6)), (48, (2, 6, 4)), (8, (2, 1, 4))))

def layer(x, w, b):
    return torch.nn.functional.gelu(torch.cat([x.sin(), x.cos()], -1)[..., ::2] @ w + b)

torch.testing.assert_close(compile_function(layer)(x, w, b), layer(x, w, b))
print(torch.backends.cpu.get_cpu_capability())
"""


def test_code_of_one_instruction_set_is_not_taken_for_another(tmp_path):
    """Processes that differ in it share a cache: PyTorch's own made the second one's values wrong."""
    for capability in ("", "avx2", "default"):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        if not capability:
            del environment["ATEN_CPU_CAPABILITY"]
        done = subprocess.run([sys.executable, "-c", NARROWER], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{capability}: {done.stderr[-2000:]}"


def test_other_errors_of_a_compiled_function_are_its_own():
    def product(a, b):
        return a @ b

    with pytest.raises(RuntimeError, match="size") as caught:
        compile_function(product, backend="eager")(torch.ones(2, 3), torch.ones(2, 3))
    assert not isinstance(caught.value, ValueError)
