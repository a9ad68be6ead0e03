"""The command ``shipbench``, also as ``python -m shipbench``; Ctrl-C ends it with one sentence at any moment."""

from __future__ import annotations

import atexit
import gc
import signal

from shipbench.runtime.exits import code_of
from shipbench.runtime.interrupts import exit_when_interrupted


def main() -> None:
    """Load the command line, and run it."""
    exit_when_interrupted("stopped before anything started; run the same command again\n", 130)
    # Handlers that are registered first run last. Python collects garbage before it exits, which takes longer than many
    # commands; it skips frozen objects.
    atexit.register(gc.freeze)
    # Afterwards Python removes its signal handlers, and Ctrl-C would kill the process.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from shipbench.cli import main as run_command_line

    try:
        run_command_line()
    except SystemExit as stop:
        # The outcome is settled: Ctrl-C may shorten the end of the process, but does not change its code.
        exit_when_interrupted("", code_of(stop))
        raise


if __name__ == "__main__":
    main()
