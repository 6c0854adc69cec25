"""Sigma rules (SigmaHQ specification 2): a document a domain, for any log of DNS queries."""

from __future__ import annotations

import json
import time

from agents.core.types import Severity
from agents.export.formats.base import uuid_of
from agents.export.record import TECHNIQUES
from agents.export.rules.base import RuleKind, Tunnel

_SPECIAL = "\\*?"
"""What a value's wildcards and escapes are (specification, "Special characters")."""


def _value(text: str) -> str:
    """A value as YAML, in which no character is a wildcard. JSON strings are YAML (YAML 1.2 section 1.3)."""
    return json.dumps("".join("\\" + char if char in _SPECIAL else char for char in text))


def _rule(tunnel: Tunnel, now: float) -> str:
    one, name = tunnel.incident, json.dumps(f"{tunnel.what}: {tunnel.domain}")
    level = "critical" if one is None or one.severity >= Severity.CRITICAL else "high"
    found = one.evidence.get("attack", []) if one else []
    tags = [f"attack.{each.lower()}" for each in TECHNIQUES if isinstance(found, list) and each in found]
    return "\n".join(
        (
            f"title: {name[:240] if len(name) <= 240 else json.dumps(tunnel.what)}",
            f"id: {uuid_of(f'sigma/{tunnel.domain}')}",
            "status: experimental",
            f"description: {json.dumps('Queries for a domain below which data left through DNS: ' + tunnel.domain)}",
            "author: dns-tunnel-detector",
            f"date: {time.strftime('%Y-%m-%d', time.gmtime(now))}",
            "tags:",
            *(f"    - {each}" for each in ["attack.command-and-control", *(tags or ["attack.t1071.004"])]),
            "logsource:",
            "    category: dns",
            "detection:",
            "    itself:",
            f"        query: {_value(tunnel.domain)}",
            "    below:",
            f"        query|endswith: {_value('.' + tunnel.domain)}",
            "    condition: itself or below",
            "falsepositives:",
            "    - Somebody who looks into this tunnel",
            f"level: {level}",
        )
    )


KIND = RuleKind(
    "sigma",
    "Sigma rules for logs of DNS queries",
    lambda tunnels, now: "\n---\n".join(_rule(one, now) for one in tunnels) + "\n",
)
