"""The log of unbound with `log-queries` or `log-replies`: query and reply are two lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan
from typing import Any

from agents.core.types import FORWARDED, FROM_CACHE
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import unframed
from agents.sources.logs.source import log_intake, rcode_of
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_PROCESS = r"(?:unbound)?\[\d+:[0-9a-f]+\] (?:info|query|reply): "
_HEAD = re.compile(
    r"(?:\[(?P<epoch>\d{1,12})\] |(?P<month>[A-Z][a-z]{2}) {1,2}(?P<day>\d{1,2}) (?P<second>[\d:]{8}) "
    rf"|(?P<iso>\d{{4}}-\d\d-\d\dT\S+) )?{_PROCESS}",
    re.ASCII,
)
"""Its own file: seconds since 1970, log-time-ascii or log-time-iso; in syslog the time is that of the frame."""
_TEXT = re.compile(
    r"(?P<client>[0-9a-fA-F.:%\w]+) (?P<qname>\S+)(?P<end>[.&]) (?P<qtype>\S+) (?P<qclass>[A-Z]\w*)"
    r"(?: (?P<rcode>[A-Z]\w*) (?P<rtt>\d+\.\d+) (?P<cached>[01]) (?P<size>\d+)(?: .*)?)?",
    re.ASCII,
)
_CUT = "&"
"""Ends a name that unbound had no room for: its domain is lost."""
_ADDRESS = re.compile(r"[0-9a-fA-F]*[.:][0-9a-fA-F.:]+(?:%\w+)? ", re.ASCII)
_ROOT = re.compile(r"^(\S+) \. ")


class UnboundReader:
    """Reads queries and replies."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)
        self._has_queries = False

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        head, ts = _HEAD.match(line), nan
        if head is not None:
            epoch, month, day, second, iso = head.groups()
            if epoch:
                ts = float(epoch)
            elif month:
                ts = self._clock.yearless(month, day, second)
            elif iso:
                ts = self._clock.iso(iso)
            text = line[head.end() :]
        else:
            frame = unframed(line, self._clock) if "[" in line and "unbound" in line else None
            inner = _HEAD.match(frame.text) if frame else None
            if frame is None or inner is None:
                return None
            ts, text = nan if frame.ts is None else frame.ts, frame.text[inner.end() :]
        return self._observed(ts, text)

    def _observed(self, ts: float, text: str) -> Observed | None:
        if not _ADDRESS.match(text):
            return None
        match = _TEXT.fullmatch(_ROOT.sub(r"\1 .. ", text))
        if match is None:
            raise ValueError("a query of unbound is cut off or damaged")
        client, qname, end, qtype, qclass, rcode, rtt, cached, size = match.groups()
        self._has_queries |= rcode is None
        if end == _CUT:
            self.nameless += rcode is None or not self._has_queries
            return None
        asked = Observed(ts, client, qname, qtype, pair=(client, qname, qtype, qclass))
        if rcode is None:
            return asked
        return asked._replace(
            rcode=rcode_of(rcode),
            rtt_ms=float(rtt) * 1000,
            rlen=int(size),
            cached=FROM_CACHE if cached == "1" else FORWARDED,
            is_answer=True,
        )


SPEC = log_intake(
    "unbound",
    "a query log of unbound",
    "lines with ‘unbound[…] info: client name. type class’",
    UnboundReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(
        names="each byte outside host names reads as ?: names of such a tunnel cannot be decoded; "
        "of the longest names, the domain is not in the log: they are not judged",
        answers="sizes alone, with log-replies",
        time="whole seconds",
    ),
)
