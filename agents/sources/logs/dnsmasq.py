"""The query log of dnsmasq and of the one in Pi-hole (`log-queries`, also `=extra`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import nan
from typing import Any

from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import unframed
from agents.sources.logs.source import literal, log_intake
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_QUERY = re.compile(
    r"(?:\d+ \S+/\d+ )?query\[(?:type=)?(?P<qtype>[\w-]+)\] (?P<qname>.*) from (?P<client>[0-9a-fA-F.:%\w]+)", re.ASCII
)
"""The name may have spaces in it: the last ` from ` is dnsmasq's own."""
_UNPRINTABLE = "<name unprintable>"
"""What dnsmasq writes where a byte of the name cannot be printed: the domain is lost, too."""


class DnsmasqReader:
    """Reads lines with `query[…]`; answers stand in other lines, as text, and are passed over."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if " query[" not in line and not line.startswith("query["):
            return None
        frame = unframed(line, self._clock)
        match = _QUERY.fullmatch(frame.text if frame else line)
        if match is None:
            if frame and not re.match(r"(?:\d+ \S+/\d+ )?query\[", frame.text):  # an answer for such a name
                return None
            raise ValueError("a query of dnsmasq is cut off or damaged")
        if match["qname"] == _UNPRINTABLE:
            self.nameless += 1
            return None
        ts = frame.ts if frame else None
        return Observed(nan if ts is None else ts, match["client"], literal(match["qname"]), match["qtype"])


SPEC = log_intake(
    "dnsmasq",
    "a query log of dnsmasq or Pi-hole",
    "lines with ‘dnsmasq…: query[type] name from client’",
    DnsmasqReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(
        names="a name with a byte that cannot be printed is not in the log at all: such tunnels are not seen",
        answers="none: data in answers is not seen",
        time="whole seconds, local, without a year",
    ),
)
