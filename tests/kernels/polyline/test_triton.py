"""The Triton kernel of the polyline without a GPU: its interpreter matrix, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trans4init.kernels.polyline import polyline

pytest.importorskip("triton", reason="needs Triton")


def test_the_kernel_is_right_in_the_interpreter():
    """In a process of its own: Triton looks at TRITON_INTERPRET when it is imported."""
    matrix = Path(__file__).with_name("interpreted_polyline.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, str(matrix)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter takes tensors on a CPU")
def test_a_cpu_is_refused_outside_the_interpreter():
    with pytest.raises(ValueError, match="impl 'triton' runs on a GPU"):
        polyline(torch.zeros(3), torch.zeros(1), torch.zeros(2, 2), impl="triton")
