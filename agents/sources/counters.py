"""What the listener counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Since start. received = malformed + refused + notimp + shed + answered + servfail + in flight."""

    received: int = 0  # messages from clients, UDP and TCP
    malformed: int = 0  # no single whole question (FORMERR), or no query at all (dropped)
    refused: int = 0  # from outside the access list
    notimp: int = 0  # an opcode other than QUERY, or a zone transfer
    shed: int = 0  # over inflight_max: SERVFAIL at once, not forwarded, not offered for scoring
    answered: int = 0  # with an upstream's answer
    servfail: int = 0  # no upstream answered
    timeouts: int = 0  # of one upstream; the query may have been answered by the next
    tcp_fallbacks: int = 0  # truncated answers that were asked again over TCP
    mismatched_answers: int = 0  # from an upstream's address, but no answer to anything asked on that socket
    unrecorded: int = 0  # answered, but not offered for scoring: the ring of answered queries was full
    tcp_clients: int = 0  # connections open now
    tcp_shed: int = 0  # connections closed at once: too many
    tcp_refused: int = 0  # connections closed at once: outside the access list
