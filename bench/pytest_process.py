"""Run pytest in a process that `trans4init bench` starts: Ctrl-C ends it without a traceback, even while it imports."""

import signal
from types import FrameType

from trans4init.ablations.cli.environment import open_streams
from trans4init.ablations.cli.stopping import leave, stop_handler

__all__ = ["main"]


def main() -> None:
    """Run pytest with the arguments of the command line, and exit with its code."""
    stop = stop_handler(lambda: None)

    def stop_once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal and the process that started this one both send it
        stop(number, frame)

    signal.signal(signal.SIGINT, stop_once)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        open_streams()
        import pytest

        code = int(pytest.main())
    except KeyboardInterrupt:  # before pytest answers it
        code = 128 + signal.SIGINT
    leave(code)


if __name__ == "__main__":
    main()
