"""Analytic events of Windows' DNS server, exported an event a line: XML (wevtutil), or JSON of an agent.

The events are 256 QUERY_RECEIVED, 257 RESPONSE_SUCCESS and 258 RESPONSE_FAILURE of Microsoft-Windows-DNSServer; what
the server asks itself has others. PacketData is the whole message in hexadecimal digits.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import json_object
from agents.sources.logs.source import literal, log_intake
from agents.sources.logs.times import LOG_TIMEZONE, Clock

_RECEIVED, _SUCCESS, _FAILURE = 256, 257, 258
_PROVIDER = "Microsoft-Windows-DNSServer"
_DATA = re.compile(r"<Data Name=[\"'](\w+)[\"']>([^<]*)</Data>")
_ID = re.compile(r"<EventID(?: [^>]*)?>(\d+)</EventID>")
_TIME = re.compile(r"<TimeCreated SystemTime=[\"']([^\"']+)[\"']")
_HEX = re.compile(r"(?:0x)?((?:[0-9A-Fa-f]{2}){12,})")
_TIMES = ("@timestamp", "TimeCreated", "EventTime", "timestamp")
"""Keys of Winlogbeat, of exports as JSON, of NXLog, and others."""


class WindowsEventsReader:
    """Reads events of clients' queries and of the answers to them."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock.of(options, written)

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if _PROVIDER not in line or "QNAME" not in line:
            return None
        number, time, data = _of_json(json_object(line)) if line.startswith("{") else _of_xml(line)
        if number not in (_RECEIVED, _SUCCESS, _FAILURE):
            return None
        is_answer = number != _RECEIVED
        client, qname = data.get("Destination" if is_answer else "Source"), data.get("QNAME")
        if not client or qname is None or not time:
            raise ValueError("an event of Windows' DNS server has no client, name or time")
        asked = Observed(
            self._clock.iso(time),
            client,
            literal(qname),
            data.get("QTYPE", ""),
            pair=(client, data.get("XID"), data.get("Port"), qname),
            is_answer=is_answer,
        )
        if is_answer:
            asked = asked._replace(rcode=int(data.get("RCODE", -1)))
        packet = _HEX.fullmatch(data.get("PacketData", ""))
        return _with_message(asked, bytes.fromhex(packet[1])) if packet else asked


def _with_message(asked: Observed, message: bytes) -> Observed:
    from agents.sources.messages import with_answer, with_question  # here: the list of kinds needs no compiler

    asked = with_question(asked, message)
    return with_answer(asked, message) if asked.is_answer else asked._replace(qlen=len(message))


def _of_xml(line: str) -> tuple[int, str, dict[str, str]]:
    """Number, time and data of an event. Raises ValueError."""
    number, time = _ID.search(line), _TIME.search(line)
    if number is None or time is None or "</Event>" not in line:
        raise ValueError("an event of Windows' DNS server is cut off or damaged")
    return int(number[1]), time[1], {name: html.unescape(value).strip() for name, value in _DATA.findall(line)}


def _of_json(found: Mapping[str, Any]) -> tuple[int, str, dict[str, str]]:
    """The same of an object: data beside all else, or below `winlog.event_data` or `EventData`. Raises ValueError."""
    log = found.get("winlog")
    log = log if isinstance(log, dict) else found
    number = log.get("event_id", found.get("EventID", found.get("Id", found.get("event_id"))))
    inner = next((one for key in ("event_data", "EventData") if isinstance(one := log.get(key), dict)), found)
    time = next((str(found[key]) for key in _TIMES if found.get(key)), "")
    if not isinstance(number, int) and not (isinstance(number, str) and number.isdecimal()):
        raise ValueError("an event of Windows' DNS server has no number")
    return int(number), time.replace(" ", "T", 1), {name: str(one).strip() for name, one in inner.items()}


SPEC = log_intake(
    "windows-events",
    "exported analytic events of Windows' DNS server",
    f"XML or JSON events of {_PROVIDER} with QNAME",
    WindowsEventsReader,
    fields=(LOG_TIMEZONE,),
    fidelity=Fidelity(
        names="exact where an event has PacketData, else as the server writes odd bytes, which is not documented",
        answers="not seen where an event has no PacketData",
    ),
)
