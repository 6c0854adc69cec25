"""A response policy zone as a zone file (RFC 1035 section 5), for resolvers that no server of ours reaches."""

from __future__ import annotations

from collections.abc import Sequence

from agents.export.rules.base import RuleKind, Tunnel, is_plain


def _name(labels: Sequence[bytes]) -> str:
    """A name in a zone file: bytes that mean something there are \\DDD."""
    return ".".join(one.decode() if is_plain(one) else "".join(f"\\{byte:03d}" for byte in one) for one in labels)


def _render(tunnels: Sequence[Tunnel], now: float) -> str:
    rows = ["$TTL 60", f"@ SOA localhost. hostmaster.localhost. {int(now)} 3600 600 86400 60", "@ NS localhost."]
    for one in tunnels:
        name = _name(one.labels)
        rows += [f"{name} CNAME .", f"*.{name} CNAME ."]
    return "\n".join(rows) + "\n"


KIND = RuleKind("rpz", "a response policy zone as a zone file", _render, blocks=True)
