"""Observed queries between processes, later machines: record, ring, ledger, counters.

Rooms above it (`sources` … `cli`) may import it.
"""

from agents.stream.record import RECORD
from agents.stream.ring import Ring

__all__ = ["RECORD", "Ring"]
