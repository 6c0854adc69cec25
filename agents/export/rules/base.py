"""What a kind of rule is, and what each rule is made of. Domains are hostile text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.core.types import Incident
from agents.dns.name import from_text, labels_of

_PLAIN = re.compile(rb"[a-z0-9_-]+")
_WORDS = re.compile(r"[^A-Za-z0-9 .,_-]")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A domain below which data left. incident: the gravest one, None where a person named the domain alone."""

    domain: str
    incident: Incident | None = None
    confirmed: bool = False

    @property
    def labels(self) -> tuple[bytes, ...]:
        """Its labels, in lower case."""
        return labels_of(from_text(self.domain).lower())

    @property
    def what(self) -> str:
        """A sentence of plain letters."""
        tool = self.incident.tool if self.incident else None
        kind = f"DNS tunnel ({tool})" if tool else "DNS tunnel"
        return plain_words(f"{kind}, {'confirmed by a person' if self.confirmed else 'found by dns-tunnel-detector'}")


@dataclass(frozen=True)
class RuleKind:
    """render: tunnels as the text of a file. now: Unix seconds. blocks: whoever reads it blocks by it."""

    name: str
    what: str
    render: Callable[[Sequence[Tunnel], float], str]
    blocks: bool = False


def plain_words(text: str, size: int = 120) -> str:
    """Text in which no program sees more than words."""
    return _WORDS.sub("_", text)[:size]


def is_plain(label: bytes) -> bool:
    """Whether a label has nothing that any format would have to escape."""
    return _PLAIN.fullmatch(label) is not None
