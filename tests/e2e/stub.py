"""The authoritative stub as a process of its own: `python -m tests.e2e.stub HOST PORT`, until SIGTERM.

On every address, one port above, it is a webhook that takes everything.
"""

from __future__ import annotations

import signal
import sys

from tests.support.stubs import StubServer
from tests.support.webhook import webhook

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    port = int(sys.argv[2])
    with StubServer(host=sys.argv[1], port=port), webhook(at=("0.0.0.0", port + 1)):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
