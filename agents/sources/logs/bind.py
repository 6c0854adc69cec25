"""The query log of BIND (`querylog yes`): each name exact, in the escapes of RFC 1035 section 5.1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import unframed
from agents.sources.logs.source import log_intake
from agents.sources.logs.times import LOG_TIMEZONE, MONTHS, Clock

_LINE = re.compile(
    r"(?:(?:(?P<iso>\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z?)|(?P<day>\d\d)-(?P<month>[A-Z][a-z]{2})-(?P<year>\d{4})"
    r" (?P<second>[\d:]{8}\.\d{3})) )?(?:queries: )?(?:info: )?client (?:@0x[0-9a-f]+ )?"
    r"(?P<client>[0-9a-fA-F.:%\w]+)#\d+(?:/key \S+)?(?: \(\S*\))?: (?:view \S+: )?"
    r"query: (?P<qname>\S+) (?P<qclass>\S+) (?P<qtype>\S+) [-+]",
    re.ASCII,
)
"""With print-time (local, iso8601 or iso8601-utc), print-category and print-severity, each optional."""


class BindReader:
    """Reads lines of category `queries`, also within syslog."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)
        self.unix = self._clock.unix

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        match, ts = _LINE.match(line), None
        if match is None:
            if ": query: " not in line:
                return None
            frame = unframed(line, self._clock)
            match = _LINE.match(frame.text) if frame else None
            if frame is None or match is None:
                raise ValueError("a query of BIND is cut off or damaged")
            ts = frame.ts
        iso, day, month, year, second, client, qname, _, qtype = match.groups()
        if iso:
            ts = self._clock.iso(iso)
        elif day:
            ts = self._clock.parts(int(year), MONTHS.get(month, 0), int(day), second)
        return Observed(float("nan") if ts is None else ts, client, qname, qtype)

    @property
    def scan(self) -> Callable[[Any, Any, Any], None]:
        """See BlockReader."""
        from agents.sources.logs.bulk.bind_kernels import scan_bind  # here: the list of kinds needs no compiler

        return scan_bind


SPEC = log_intake(
    "bind",
    "a query log of BIND",
    "lines with ‘client …#port (name): query: name class type’",
    BindReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(
        answers="none: data in answers is not seen",
        time="milliseconds; local, without a zone, unless print-time is iso8601-utc",
    ),
)
