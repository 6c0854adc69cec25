"""Compiles every kernel, once: `python -m agents.warm` after installing, so that no command waits for it later."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Timer

from agents import snapshot
from agents.detection import TunnelDetector
from agents.flows import Flows
from agents.kernels import COMPILED
from agents.model import Model
from agents.policy import Scale
from agents.shipped import batch_of, model_bytes
from agents.sources import compiled

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
        _judge()
        compiled.load()
    finally:
        timer.cancel()


def _judge() -> None:
    """Everything that judging may need: counting, making room, forgetting, and windows out of a file."""
    detector = TunnelDetector(Model.from_bytes(model_bytes()), 4, 3600.0, Scale())
    for at in range(2):
        names = [f"{i}.{at}.example{i}.com" for i in range(8)]
        detector.detect(batch_of([1e6 * at] * 8, ["192.0.2.1"] * 8, names, [16] * 8))
    (row, *_) = detector.flows.rows(lambda flows: flows["used"] == 1)
    detector.flows.forget(row)
    detector.flows.find("192.0.2.1", 0)
    snapshot.load(snapshot.dump(detector.flows), Flows(4))


def main() -> int:
    """Compile what is not compiled yet."""
    up(lambda text: print(text, file=sys.stderr))
    return 0


if __name__ == "__main__":
    sys.exit(main())
