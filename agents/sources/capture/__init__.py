"""Captures: pcap and pcapng files as a Source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agents.core.protocols import Field, Source
from agents.sources.capture.pcap import PCAP_MAGICS, PCAPNG_MAGIC
from agents.sources.intake import Intake


def is_capture(head: bytes) -> bool:
    """Whether a file that begins so is a pcap or a pcapng file."""
    return head[:4] == PCAPNG_MAGIC or head[:4] in PCAP_MAGICS


def ports_of(text: str) -> frozenset[int]:
    """Ports, comma-separated. Raises ValueError."""
    for part in text.split(","):
        if not (part.strip().isascii() and part.strip().isdigit() and 1 <= int(part) <= 65535):
            raise ValueError(f"{part.strip()!r} is no port between 1 and 65535")
    return frozenset(int(part) for part in text.split(","))


def _open(path: Path, options: Mapping[str, str]) -> Source:
    # Imported here: it loads the compiler, which the list of kinds does not need.
    from agents.sources.capture.source import PcapSource

    return PcapSource(path, ports_of(options["replay_ports"]))


_WHICH_PORTS = "ports that carry DNS in a capture, comma-separated; on others, queries are known by their content"
SPEC = Intake(
    name="pcap",
    summary="a pcap or pcapng capture",
    fields=(
        Field(
            "replay_ports",
            str,
            "53",
            _WHICH_PORTS,
            ports_of,
        ),
    ),
    factory=_open,
    recognizes=is_capture,
    sign="the number that such files begin with",
)
