"""The authoritative stub as a process of its own: `python -m tests.e2e.stub HOST PORT`, until SIGTERM."""

from __future__ import annotations

import signal
import sys

from tests.support.stubs import StubServer

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with StubServer(host=sys.argv[1], port=int(sys.argv[2])):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
