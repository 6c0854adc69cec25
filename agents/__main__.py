"""`dns-tunnel` and `python -m agents`."""

import os
import signal
import sys
from collections.abc import Sequence

# Python would show where in its imports, or in its own end, Ctrl-C found it: outside of `main` it ends without a word.
_PYTHONS = signal.getsignal(signal.SIGINT)
if _PYTHONS is signal.default_int_handler:  # and not ignored, as in the background of a shell
    signal.signal(signal.SIGINT, signal.SIG_DFL)
# Before NumPy is imported: nothing here multiplies matrices, and a process that forks should have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from agents import cli  # noqa: E402 - what is above must come before

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    wordless = signal.signal(signal.SIGINT, _PYTHONS)
    try:
        return cli.main(arguments)
    finally:
        signal.signal(signal.SIGINT, wordless)


if __name__ == "__main__":
    sys.exit(main())
