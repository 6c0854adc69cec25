"""The debug log of Windows' DNS server: packets a line, names as (3)www(7)example(3)com(0), local times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agents.core.protocols import Field
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.source import log_intake, rcode_of
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_LINE = re.compile(
    r"(?P<a>\d{1,4})(?P<mark>[./-])(?P<b>\d{1,2})[./-](?P<c>\d{1,4})\.? (?P<hour>\d{1,2})[:.](?P<rest>\d\d[:.]\d\d)"
    r"(?: (?P<half>[AP]M))? +[0-9A-Fa-f]{3,8} PACKET +[0-9A-Fa-f]{8,16} (?:UDP|TCP) (?P<way>Rcv|Snd) "
    r"(?P<client>[0-9a-fA-F.:%\w]+) +(?P<id>[0-9a-fA-F]{4}) (?P<response>[R ]) (?P<opcode>[QNU?]) "
    r"\[[0-9a-fA-F]{4} [ATDR ]* (?P<rcode>\w+)\] (?P<qtype>\w+) +(?P<qname>\(.*)",
    re.ASCII,
)
_LABEL = re.compile(rb"\((\d{1,2})\)")
_ORDERS = ("auto", "dmy", "mdy")


def _order(text: str) -> None:
    if text not in _ORDERS:
        raise ValueError(f"{text[:20]!r} is none of {', '.join(_ORDERS)}")


LOG_DATE_ORDER = Field(
    "log_date_order",
    str,
    "auto",
    "order of day and month in a Windows debug log: dmy, mdy or auto (mdy with AM and PM, else dmy)",
    _order,
)


class WindowsReader:
    """Reads what clients asked and were answered; what the server itself asks is passed over."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)
        self._order = options.get(LOG_DATE_ORDER.name, LOG_DATE_ORDER.default)

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if " PACKET " not in line:
            return None
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError("a packet of Windows' debug log is cut off or damaged")
        is_answer = match["response"] == "R"
        if match["opcode"] != "Q" or is_answer != (match["way"] == "Snd"):
            return None
        client, qname, qtype = match["client"], _presentation(match["qname"]), match["qtype"]
        asked = Observed(
            self._time(match), client, qname, qtype, pair=(client, match["id"], qname, qtype), is_answer=is_answer
        )
        return asked._replace(rcode=rcode_of(match["rcode"])) if is_answer else asked

    def _time(self, match: re.Match[str]) -> float:
        first, second, third, half = int(match["a"]), int(match["b"]), int(match["c"]), match["half"]
        if len(match["a"]) == 4:
            year, month, day = first, second, third
        elif self._order == "mdy" or (self._order == "auto" and half and first <= 12):
            month, day, year = first, second, third
        else:
            day, month, year = first, second, third
        hour = int(match["hour"])
        if half:
            hour = hour % 12 + (12 if half == "PM" else 0)
        year += 2000 if year < 100 else 0
        return self._clock.parts(year, month, day, f"{hour:02d}:{match['rest'].replace('.', ':')}")


def _presentation(text: str) -> str:
    """The presentation form of a name with the lengths of its labels, in bytes, in it. Raises ValueError."""
    data, labels, at = text.encode("utf-8", "surrogateescape"), list[bytes](), 0
    while match := _LABEL.match(data, at):
        size = int(match[1])
        if size == 0:
            if match.end() != len(data):
                break
            return b".".join(labels).decode("utf-8", "surrogateescape") or "."
        label = data[match.end() : match.end() + size]
        labels.append(label.replace(b"\\", b"\\\\").replace(b".", b"\\."))
        at = match.end() + size
    raise ValueError("a name in Windows' debug log does not have the lengths that it says")


SPEC = log_intake(
    "windows",
    "a debug log of Windows' DNS server",
    "lines with ‘PACKET … UDP Rcv client … (3)www(7)example(3)com(0)’",
    WindowsReader,
    fields=(LOG_TIMEZONE, LOG_DATE_ORDER),
    fidelity=Fidelity(
        names="bytes outside ASCII stand in the server's code page",
        answers="none: data in answers is not seen",
        time="whole seconds, local, day and month in the order of the server's region",
    ),
)
