"""The log of CoreDNS' plugin `log` in its common format; the time is that of what runs CoreDNS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan
from typing import Any

from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import unframed
from agents.sources.logs.source import log_intake, rcode_of
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_LINE = re.compile(
    r"(?:\[INFO\] )?(?P<client>\[?[0-9a-fA-F.:]+(?:%\w+)?\]?):\d+ - \d+ "
    r'"(?P<qtype>\S+) \S+ (?P<qname>(?:\\.|[^"\\ ])+) \w+ (?P<qlen>\d{1,5}) \w+ \d+" '
    r"(?P<rcode>\S+) \S+ (?P<rlen>\d{1,5}) (?P<took>\d+(?:\.\d+)?)s",
    re.ASCII,
)


class CoreDnsReader:
    """Reads lines of the plugin; the time of an answer and how long it took give the time of its query."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if "[INFO] " not in line or " - " not in line:
            return None
        match, ts = _LINE.fullmatch(line), None
        if match is None:
            frame = unframed(line, self._clock)
            if frame is None or '"' not in frame.text:
                return None
            match, ts = _LINE.fullmatch(frame.text), frame.ts
            if match is None:
                raise ValueError("a query of CoreDNS is cut off or damaged")
        took = float(match["took"])
        return Observed(
            nan if ts is None else ts - took,
            match["client"].strip("[]"),
            match["qname"],
            match["qtype"],
            qlen=int(match["qlen"]),
            rcode=rcode_of(match["rcode"]),
            rlen=int(match["rlen"]),
            rtt_ms=took * 1000,
        )


SPEC = log_intake(
    "coredns",
    "a query log of CoreDNS",
    'lines with ‘[INFO] client:port - id "type class name …" rcode’',
    CoreDnsReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(
        names="small letters only: names in base64 cannot be decoded",
        answers="sizes alone",
        time="that of what runs CoreDNS; without a collector's there is none",
    ),
)
