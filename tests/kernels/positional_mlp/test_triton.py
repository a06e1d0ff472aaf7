"""The Triton kernels without a GPU: their interpreter matrix, and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trans4init.kernels.positional_mlp import positional_mlp

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
