"""`dns-tunnel` and `python -m agents`."""

import gc
import os
import sys

# Before NumPy is imported: nothing here multiplies matrices, and a process that forks should have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Loading modules and kernels makes a million objects that stay, and judging makes few that refer to each other:
# looking through them every 700 objects is a quarter of a start.
gc.set_threshold(50_000, 20, 20)

from agents.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
