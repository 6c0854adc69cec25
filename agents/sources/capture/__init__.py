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


def _open(path: Path, options: Mapping[str, str]) -> Source:
    # Imported here: it loads the compiler, which the list of kinds does not need.
    from agents.sources.capture.source import PcapSource

    return PcapSource(path, frozenset(int(port) for port in options["replay_ports"].split(",")))


SPEC = Intake(
    name="pcap",
    summary="a pcap or pcapng capture",
    fields=(Field("replay_ports", str, "53", "ports that carry DNS in a capture, comma-separated"),),
    factory=_open,
    recognizes=is_capture,
)
