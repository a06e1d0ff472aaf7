"""Memory between training steps."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
{call}

def step():
    held = [torch.ones(3 * 2**20) for _ in range(8)]  # 12 MiB each
    return sum(one[0] for one in held)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from trans4init.ablations.device import keep_freed_memory; keep_freed_memory()"


def pages(call):
    """How many pages five steps take from the system, in a process of their own: it is never taken back there.

    The threshold of mapped blocks is glibc's first one, and stands: it would grow with what is freed, and whether the
    heap's end is returned would be decided by what lies there by chance.
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
