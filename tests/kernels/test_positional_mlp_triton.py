"""The Triton kernels without a GPU: their interpreter matrix, ahead-of-time compilation, and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trans4init.kernels.positional_mlp import positional_mlp
from trans4init.kernels.positional_mlp.aot import ARCHITECTURES, Variant, compile_variant

pytest.importorskip("triton", reason="needs Triton")


def test_the_kernels_are_right_in_the_interpreter():
    """In a process of its own: Triton looks at TRITON_INTERPRET when it is imported."""
    matrix = Path(__file__).with_name("interpreted_positional_mlp.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, str(matrix)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter takes tensors on a CPU")
def test_a_cpu_is_refused_outside_the_interpreter():
    weights, biases = [torch.zeros(1, 2, 4), torch.zeros(1, 4, 1)], [torch.zeros(1, 4), torch.zeros(1, 1)]
    with pytest.raises(ValueError, match="impl 'triton' runs on a GPU"):
        positional_mlp(torch.zeros(3), torch.zeros(1), weights, biases, features="fourier", impl="triton")


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_net_of_width_128_compiles_without_spills(architecture, backward):
    """In float32 with the products that take most registers; the command in the README does the others."""
    compiled = compile_variant(Variant(backward, "fp32", (32, 128, 128, 128)), architecture)
    assert compiled.stack == 0, compiled
    assert compiled.shared <= (163_840 if architecture == 80 else 232_448), compiled
