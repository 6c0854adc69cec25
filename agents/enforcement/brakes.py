"""What is never blocked, and why: zones of one's own, what the operator names, known services, what is popular here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agents.core.errors import NameFormatError, UsageError
from agents.core.text import counted, printable
from agents.dns.name import domain_text, from_text, is_listed, is_public_suffix, labels_of, to_text

Labels = tuple[bytes, ...]
POPULAR_S = 7 * 86_400.0
"""Clients of so many seconds make a domain popular."""
RESERVED = ("arpa", "localhost", "root-servers.net")
"""Nobody's tunnel: reverse names, this machine, the root's servers."""
RPZ_LABELS = b"rpz-"
"""How last labels begin that mean something else in a response policy zone (draft-vixie-dnsop-dns-rpz section 4)."""


def checked_domain(text: str) -> str:
    """A domain as blocks have it: lower case, without a last dot. Raises UsageError, also for a public suffix."""
    typed = text.strip().rstrip(".").lower()
    try:
        wire = from_text(typed)
    except NameFormatError as error:
        raise UsageError(f"cannot block {printable(text)!r}: {error}") from None
    labels = labels_of(wire)
    if not labels or is_listed(labels) or is_public_suffix(labels):
        raise UsageError(f"cannot block {printable(text)!r}: strangers have names below it")
    return to_text(wire)


def related(one: Labels, other: Labels) -> bool:
    """Whether one of two names lies below the other, or is it."""
    shorter = min(len(one), len(other))
    return bool(shorter) and one[len(one) - shorter :] == other[len(other) - shorter :]


@dataclass(frozen=True)
class NeverBlock:
    """The list of what is never blocked.

    own: zones of this network's own, and of the drill. never: the operator's. known: gives the suffixes of known
    services and allowed ones. clients_since: how many clients asked for a registered domain, or below it, since a time;
    raises StoreError.
    """

    own: Sequence[str] = ()
    never: Sequence[str] = ()
    known: Callable[[], Iterable[Labels]] = tuple
    clients_since: Callable[[str, float], int] = lambda domain, since: 0
    popular: int = 5

    def always(self, domain: str) -> str:
        """Why not even a person blocks it; "" where a person may."""
        labels = labels_of(from_text(domain))
        for why, names in (("a zone of your own", self.own), ("never blocked (ENFORCE_NEVER)", self.never)):
            for name in names:
                if related(labels, labels_of(from_text(name.lower()))):
                    return f"{printable(name)} is {why}"
        if labels and labels[-1].startswith(RPZ_LABELS):
            return "a response policy zone takes its last label for an instruction"
        if not labels or is_listed(labels) or is_public_suffix(labels):
            return "strangers have names below it"
        return next((f"{name} is reserved" for name in RESERVED if related(labels, labels_of(from_text(name)))), "")

    def usually(self, domain: str, now: float | None = None) -> str:
        """Why it is blocked by nobody but a person who insists; "" where it may be. Raises StoreError."""
        labels = labels_of(from_text(domain))
        for suffix in self.known():
            if related(labels, suffix):
                return f"{b'.'.join(suffix).decode('ascii', 'backslashreplace')} is a known service or an allowed one"
        registered = domain_text(from_text(domain))  # what is below a popular domain is as popular
        clients = self.clients_since(registered, (time.time() if now is None else now) - POPULAR_S)
        if clients >= self.popular:
            return f"it is popular here: {counted(clients, 'client')} asked for it in seven days (ENFORCE_POPULAR)"
        return ""
