"""Zeek's dns.log, as tab-separated values or as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from agents.core.types import UNKNOWN
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import json_object
from agents.sources.logs.source import log_intake, recognizer, unescaped
from agents.sources.logs.times import Clock

_BYTE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|\\?)")
"""Zeek's escape of a byte, or of a backslash; one that stands alone is a backslash, too."""
_PRIVATE = re.compile("[\U000f0000-\U000f00ff]")
"""A byte as policy PUA of Zeek 9.0 has it (json_string_escape_policy): behind U+F0000. No backslash is an escape."""
_HEADER = re.compile(rb"#(?:separator|fields)[ \t]")
_NEEDED = ("ts", "id.orig_h", "query")


class ZeekReader:
    """Reads rows of dns.log; of tab-separated ones, lines with # say which column is which."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock()
        self._separator, self._within, self._unset, self._empty = "\t", ",", "-", "(empty)"
        self._fields: list[str] = []

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if line.startswith("#"):
            self._take_header(line)
            return None
        if line.startswith("{"):
            return self._observed(_without_private(json_object(line))) if '"query"' in line else None
        if not line:
            return None
        if not self._fields:
            raise ValueError("a row of Zeek without a line #fields before it")
        values = line.split(self._separator)
        if len(values) != len(self._fields):
            raise ValueError(f"{len(values)} fields, but #fields names {len(self._fields)}")
        row = {
            name: "" if value == self._empty else value
            for name, value in zip(self._fields, values, strict=True)
            if value != self._unset
        }
        return self._observed(row) if "query" in self._fields else None

    def _take_header(self, line: str) -> None:
        name, _, rest = line[1:].partition(" " if line.startswith("#separator ") else self._separator)
        if name == "separator":
            self._separator = _unescaped(rest.strip()) or "\t"
        elif name == "set_separator":
            self._within = rest or ","
        elif name == "unset_field":
            self._unset = rest
        elif name == "empty_field":
            self._empty = rest
        elif name == "fields":
            self._fields = rest.split(self._separator)

    def _observed(self, row: Mapping[str, Any]) -> Observed | None:
        ts, client, query = (row.get(name) for name in _NEEDED)
        if query is None:  # an answer without a question, or another protocol on port 53
            return None
        if not isinstance(query, str) or not isinstance(client, str) or ts is None:
            raise ValueError("a row of Zeek has no time, client or name")
        qtype = row.get("qtype", row.get("qtype_name"))
        if qtype is None:
            return None
        answers, ttls = self._list(row.get("answers")), self._list(row.get("TTLs"))
        rcode = row.get("rcode")
        return Observed(
            self._time(ts),
            client,
            unescaped(query, _BYTE),
            str(qtype),
            rcode=UNKNOWN if rcode is None else int(rcode),
            ancount=UNKNOWN if rcode is None else len(answers),
            ttl_min=min((int(float(ttl)) for ttl in ttls), default=UNKNOWN),
            rtt_ms=nan if row.get("rtt") is None else float(row["rtt"]) * 1000,
        )

    def _time(self, ts: object) -> float:
        if not isinstance(ts, int | float) and not _is_number(ts):
            return self._clock.iso(str(ts))
        number = float(str(ts))
        if isnan(number):
            raise ValueError("a row of Zeek has no number as its time")
        return number

    def _list(self, value: object) -> list[Any]:
        if isinstance(value, str):
            return value.split(self._within) if value else []
        return value if isinstance(value, list) else []


def _without_private(row: dict[str, Any]) -> dict[str, Any]:
    """A row of JSON whose name has the escapes of tab-separated rows, whichever policy wrote it."""
    query = row.get("query")
    if isinstance(query, str) and _PRIVATE.search(query):
        escaped = query.replace("\\", "\\\\")
        return row | {"query": _PRIVATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", escaped)}
    return row


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.replace(".", "", 1).isdecimal()


def _unescaped(text: str) -> str:
    return _BYTE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "\\", text)


_recognizes_rows = recognizer(ZeekReader)


def _recognizes(head: bytes) -> bool:
    if not _HEADER.match(head):
        return _recognizes_rows(head)
    return b"\nquery" in head.replace(b"\t", b"\n") and b"qtype" in head


SPEC = log_intake(
    "zeek",
    "a dns.log of Zeek",
    "a line #fields with query and qtype, or JSON objects with id.orig_h and query",
    ZeekReader,
    recognizes=_recognizes,
    fidelity=Fidelity(
        names="small letters only: names in base64 cannot be decoded; a dot within a label splits it",
        answers="text without sizes: data in answers is counted in records only",
    ),
)
