"""Compiles every kernel, once: `python -m agents.warm` after installing, so that no command waits for it later."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Timer

from agents import lexical
from agents.kernels import COMPILED
from agents.model import Model
from agents.names import from_text
from agents.shipped import model_bytes

PATIENCE_S = 1.0
NOTE = "kernels are compiled for this processor, once; KERNELS=off works without"


def up(tell: Callable[[str], None]) -> None:
    """Load all kernels, compiled or not; `tell` gets one line where that takes longer than PATIENCE_S."""
    if not COMPILED:
        return
    timer = Timer(PATIENCE_S, tell, [NOTE])
    timer.daemon = True
    timer.start()
    try:
        lexical.read([from_text("www.example.com")], Model.from_bytes(model_bytes()), (0, 0))
    finally:
        timer.cancel()


def main() -> int:
    """Compile what is not compiled yet."""
    up(lambda text: print(text, file=sys.stderr))
    return 0


if __name__ == "__main__":
    sys.exit(main())
