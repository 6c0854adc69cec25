"""`dns-tunnel` and `python -m agents`."""

import os
import sys

# Before NumPy is imported: nothing here multiplies matrices, and a process that forks should have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from agents.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
