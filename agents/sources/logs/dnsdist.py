"""dnsdist's text log of `LogAction`: names exact, in decimal escapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan
from typing import Any

from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import unframed
from agents.sources.logs.source import log_intake
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_LINE = re.compile(
    r"(?:\[(?P<second>\d{1,12})\.(?P<nanoseconds>\d{1,9})\] )?"
    r"Packet from (?P<client>\[?[0-9a-fA-F.:]+\]?):\d+ for (?P<qname>\S+) (?P<qtype>\S+) with id \d+",
    re.ASCII,
)


class DnsdistReader:
    """Reads lines of LogAction; those of LogResponseAction are passed over, so that nothing counts twice."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        match, ts = _LINE.fullmatch(line), nan
        if match is None:
            if "Packet from " not in line:
                return None
            frame = unframed(line, self._clock)
            match = _LINE.fullmatch(frame.text) if frame else None
            if frame is None or match is None:
                raise ValueError("a query of dnsdist is cut off or damaged")
            ts = nan if frame.ts is None else frame.ts
        second, nanoseconds, client, qname, qtype = match.groups()
        if second:  # the fraction has no leading zeros: .50204473 is 50,204,473 ns
            ts = int(second) + int(nanoseconds) * 1e-9
        return Observed(ts, client.strip("[]"), qname, qtype)


SPEC = log_intake(
    "dnsdist",
    "a query log of dnsdist",
    "lines with ‘Packet from client:port for name type with id’",
    DnsdistReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(answers="none: data in answers is not seen"),
)
