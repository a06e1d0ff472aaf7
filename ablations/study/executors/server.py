"""Let the server that worker processes are forked from end with the process that started it: the first that it imports.

Python's own server notices only when it has imported all modules, which takes seconds. Where the system is not Linux,
that is so here too.
"""

import ctypes
import os
import signal
import sys

__all__ = ["STARTER"]

STARTER = "TRANS4INIT_STARTER"
"""Environment variable of the server: the id of the process that started it."""
_PR_SET_PDEATHSIG = 1
"""The name in <linux/prctl.h>; see prctl(2)."""

_starter = os.environ.pop(STARTER, None)  # else a command that a worker starts would take itself for this server
if _starter is not None and sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(_starter):  # it ended before that call
        os._exit(1)
