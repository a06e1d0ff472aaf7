"""The memory that a training step frees serves the next step."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
{call}

def step():
    blocks = [torch.ones(3 * 2**20) for _ in range(8)]  # 12 MiB each
    return sum(block[0] for block in blocks)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from trans4init.ablations.device import keep_freed_memory; keep_freed_memory()"


def pages(call):
    """Count the pages that five steps take from the system, in a process of their own, since the setting stays.

    The environment fixes glibc's initial threshold for mapped blocks. Otherwise it would grow with what is freed, and
    chance would decide whether the end of the heap is returned.
    """
    done = subprocess.run(
        [sys.executable, "-c", STEPS.format(call=call)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 2**10)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_a_step_has_freed_serves_the_next():
    assert pages(KEEP) < pages("") / 20
