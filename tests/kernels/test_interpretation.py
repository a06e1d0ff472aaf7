"""Triton kernels on CPU tensors: interpreted in any process, beside compiled ones."""

import os
import subprocess
import sys

import pytest

from trans4init.kernels.attention.launch import KERNELS as ATTENTION
from trans4init.kernels.polyline.launch import KERNELS as POLYLINE
from trans4init.kernels.positional_mlp.launch import KERNELS as POSITIONAL_MLP

pytest.importorskip("triton", reason="needs Triton")

ENTRIES = {
    ATTENTION: ("forward_kernel", "query_gradient_kernel", "key_gradient_kernel", "table_gradient_kernel"),
    POLYLINE: ("polyline_kernel",),
    POSITIONAL_MLP: ("forward_kernel", "backward_kernel"),
}

PROGRAM = """
import torch
from trans4init.kernels.attention import attention
from trans4init.kernels.polyline import polyline
from trans4init.kernels.positional_mlp import positional_mlp

torch.manual_seed(0)
q, x = torch.randn(1, 1, 5, 16), torch.randn(7)
net = [torch.randn(1, 2, 4), torch.randn(1, 4, 1)], [torch.randn(1, 4), torch.randn(1, 1)]
calls = {
    "attention": lambda impl: attention(q, q, q, impl=impl),
    "polyline": lambda impl: polyline(x, torch.zeros(1), torch.tensor([[1.0, 2.0], [3.0, 3.0]]), impl=impl),
    "positional MLP": lambda impl: positional_mlp(x, torch.ones(1), *net, features="fourier", impl=impl),
}
for name, call in calls.items():
    torch.testing.assert_close(call("triton"), call("reference"), rtol=1e-5, atol=1e-5, msg=name)
"""


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="with this variable Triton compiles nothing")
@pytest.mark.parametrize("files", ENTRIES, ids=lambda files: files.package.rpartition(".")[2])
def test_interpreted_and_compiled_kernels_live_in_one_process(files):
    """Each kernel is still of its own kind after the other was loaded."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for name in ENTRIES[files]:
        assert isinstance(files.kernels(interpreted=True)[name], InterpretedFunction)
        assert isinstance(files.kernels(interpreted=False)[name], JITFunction)


def test_every_operator_runs_on_a_cpu_where_triton_itself_was_imported_for_interpretation():
    """In a process of its own, since Triton reads TRITON_INTERPRET when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", PROGRAM]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
