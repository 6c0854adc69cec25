"""What a format is, and what several of them share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from agents.export.record import Record

VENDOR, PRODUCT = "dns-tunnel-detector", "dns-tunnel-detector"


@dataclass(frozen=True)
class Format:
    """render: a record as text of one line without its end; lines: whether it may be several."""

    name: str
    what: str
    render: Callable[[Record], str]
    lines: bool = False


def line(value: Any) -> str:
    """JSON in one line, ASCII: no byte of an attacker's reaches a terminal or a parser as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def millis(seconds: float) -> int:
    """Milliseconds since 1970."""
    return round(seconds * 1000)


def uuid_of(text: str) -> UUID:
    """A UUID that is the same for the same text (RFC 9562 section 5.5)."""
    return uuid5(NAMESPACE_URL, f"{PRODUCT}/{text}")
