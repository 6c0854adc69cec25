"""`dns-tunnel` and `python -m agents`."""

import sys

from agents.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
