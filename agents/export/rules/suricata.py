"""Suricata rules: the buffer dns.query with dotprefix and endswith is a domain and all names below it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from agents.export.rules.base import RuleKind, Tunnel, is_plain, plain_words

SID_FIRST, SID_COUNT = 1_000_000, 1_000_000
"""Numbers of local rules (docs.suricata.io, "sid"); each domain has the same each time."""


def dotted(tunnel: Tunnel) -> str:
    """The domain with a dot before it; bytes that mean something in a rule are in hexadecimal."""
    parts = [one.decode() if is_plain(one) else f"|{one.hex(' ')}|" for one in tunnel.labels]
    return "." + ".".join(parts)


def _render(tunnels: Sequence[Tunnel], now: float) -> str:
    taken: set[int] = set()
    rows = []
    for one in tunnels:
        number = int.from_bytes(hashlib.sha256(one.domain.encode("utf-8", "surrogatepass")).digest()[:8]) % SID_COUNT
        while number in taken:
            number = (number + 1) % SID_COUNT
        taken.add(number)
        rows.append(
            f'alert dns any any -> any any (msg:"{one.what}: {plain_words(one.domain)}"; '
            f'dns.query; dotprefix; content:"{dotted(one)}"; nocase; endswith; '
            f"classtype:trojan-activity; sid:{SID_FIRST + number}; rev:1;)\n"
        )
    return "".join(rows)


KIND = RuleKind("suricata", "Suricata rules on dns.query", _render)
