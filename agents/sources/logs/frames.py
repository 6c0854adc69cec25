"""What collectors put around a log line: syslog (RFC 3164, RFC 5424), rsyslog, journald, container runtimes."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from agents.sources.logs.times import Clock

_CLASSIC = re.compile(
    r"(?:<\d{1,3}>)?(?P<month>[A-Z][a-z]{2}) {1,2}(?P<day>\d{1,2}) (?P<second>\d\d:\d\d:\d\d) "
    r"(?:(?P<host>\S+) )?(?P<tag>[^\s:\[]+)(?:\[[^\]]*\])?: ?(?P<text>.*)",
    re.ASCII | re.DOTALL,
)
"""RFC 3164 section 4.1, the priority and the host optional: files have none of the first, dnsmasq's no host either."""
_MODERN = re.compile(
    r"<\d{1,3}>1 (?P<time>\S+) \S+ (?P<tag>\S+) \S+ \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (?:\ufeff)?(?P<text>.*))?",
    re.ASCII | re.DOTALL,
)
"""RFC 5424 section 6."""
_DATED = re.compile(
    r"(?:<\d{1,3}>)?(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) \S+ (?P<tag>[^\s:\[]+)(?:\[[^\]]*\])?: ?(?P<text>.*)",
    re.ASCII | re.DOTALL,
)
"""rsyslog's file format: RFC 3164 with an ISO 8601 time."""
_CONTAINER = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) std(?:out|err) [FP] (?P<text>.*)", re.DOTALL)
"""Kubernetes' container runtimes."""


class Frame(NamedTuple):
    """A line out of its frame. ts: Unix seconds, None = the frame has no time."""

    ts: float | None
    text: str


def unframed(line: str, clock: Clock) -> Frame | None:
    """The text in a frame, or None if the line is in none that is known. Raises ValueError for a time that is none."""
    if line.startswith("{"):
        return _of_json(line, clock)
    if match := _CLASSIC.fullmatch(line):
        return Frame(clock.yearless(match["month"], match["day"], match["second"]), match["text"])
    match = _MODERN.fullmatch(line) or _CONTAINER.fullmatch(line) or _DATED.fullmatch(line)
    if match is None:
        return None
    return Frame(None if match["time"] == "-" else clock.iso(match["time"]), match["text"] or "")


def _of_json(line: str, clock: Clock) -> Frame | None:
    """docker's json-file (`log`, `time`) and journald's export (`MESSAGE`, `__REALTIME_TIMESTAMP` in microseconds)."""
    found = json_object(line)
    text, time = found.get("log"), found.get("time")
    if isinstance(text, str):
        return Frame(clock.iso(time) if isinstance(time, str) else None, text.rstrip("\n"))
    text, time = found.get("MESSAGE"), found.get("__REALTIME_TIMESTAMP")
    if isinstance(text, str):
        return Frame(int(time) / 1e6 if isinstance(time, str) and time.isdecimal() else None, text)
    return None


def json_object(line: str) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError if there is none."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found
