"""Observed queries between processes, later machines: record, ring, ledger, counters.

Rooms above it (`sources` … `cli`) may import it. The seam is `core.protocols.Stream`; `shared.SharedStream` implements
it for one machine.
"""

from agents.stream.record import RECORD
from agents.stream.ring import Ring
from agents.stream.shared import SharedStream

__all__ = ["RECORD", "Ring", "SharedStream"]
