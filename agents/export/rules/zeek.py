"""Zeek's intelligence framework: a table of indicators, divided by tabs.

The framework compares whole names. So the domain is an indicator, and so are the names that were seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.core.errors import NameFormatError
from agents.dns.name import from_text, labels_of
from agents.export.rules.base import RuleKind, Tunnel

FIELDS = ("indicator", "indicator_type", "meta.source", "meta.desc", "meta.do_notice")
_ESCAPED = b"\\\t\n\r,"


def _name(labels: Sequence[bytes]) -> str:
    """A name as Zeek reads it: what is not printable, or divides, is \\xHH."""
    return ".".join(
        "".join(chr(byte) if 33 <= byte <= 126 and byte not in _ESCAPED else f"\\x{byte:02x}" for byte in label)
        for label in labels
    )


def _names(tunnel: Tunnel) -> Iterator[str]:
    yield _name(tunnel.labels)
    for text in tunnel.incident.sample_names if tunnel.incident else ():
        try:
            yield _name(labels_of(from_text(text).lower()))
        except NameFormatError:  # cut, or not as a source gave it
            continue


def _render(tunnels: Sequence[Tunnel], now: float) -> str:
    rows = ["#fields\t" + "\t".join(FIELDS)]
    for one in tunnels:
        rows += ["\t".join((name, "Intel::DOMAIN", "dns-tunnel", one.what, "T")) for name in dict.fromkeys(_names(one))]
    return "\n".join(rows) + "\n"


KIND = RuleKind("zeek", "Zeek intelligence: the domains, and names that were seen", _render)
