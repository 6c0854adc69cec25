"""dnstap and PowerDNS' protobuf: frames with whole messages, or what a server made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.core.protocols import Source
from agents.sources.intake import Intake

DNSTAP = b"protobuf:dnstap.Dnstap"
"""The content type that the START frame names."""
START = 2
"""Type of the control frame that a stream begins with (Frame Streams, FSTRM_CONTROL_START)."""


def is_dnstap(head: bytes) -> bool:
    """Whether a file that begins so has a START frame of dnstap."""
    size = int.from_bytes(head[4:8])
    return head[:4] == bytes(4) and head[8:12] == START.to_bytes(4) and DNSTAP in head[12 : 8 + size]


def _open(path: Path, options: Mapping[str, Any]) -> Source:
    # Imported here: it loads the compiler, which the list of kinds does not need.
    from agents.sources.dnstap.source import DnstapSource

    return DnstapSource(path)


SPEC = Intake(
    name="dnstap",
    summary="a dnstap file",
    fields=(),
    factory=_open,
    recognizes=is_dnstap,
    sign="the first frame, which names dnstap",
)
