"""`dns-tunnel` and `python -m agents`."""

import os
import signal
import sys

# Until a command begins Ctrl-C ends this without a word: as an exception some libraries swallow it while they are
# loaded, and of the others Python shows where it found them. Where it is ignored, as in the background, it stays so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# Before NumPy is imported: nothing here multiplies matrices, and a process that forks should have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from agents.cli.parser import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
