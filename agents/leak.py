"""How much leaves before a tunnel of a given speed is found: one after the other, laid over one client's own traffic.

Each tunnel sends random bytes as base32 (RFC 4648 section 6) below one domain, at a steady rate, for a day or
LIMIT_BYTES. Bytes are the sender's own: what it got out, not what the detector counted.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter

from agents.detection import TunnelDetector
from agents.measured import Leak
from agents.names import domain_text, from_text
from agents.types import Row, batch_of

RATES = (0.0116, 0.02, 0.1, 0.7, 10.0, 1000.0)
"""Bytes a second; 0.0116 are 1,000 bytes a day."""
CARRIED = 30
"""Bytes that one name carries: a label's worth."""
SPAN_S, LIMIT_BYTES = 86_400.0, 20_000
DOMAIN, CLIENT, START = "data.example-tunnel.net", "tunnel", 1_700_000_000.0
"""CLIENT and START hold where there is no benign client to lay a tunnel over."""
BACKGROUND_MAX = 20_000
"""Most queries of the benign client that are used, from its first: they bound the time that a curve takes."""
AT_ONCE = 256
Maker = Callable[[random.Random, int], str]


def leak_curve(background: Mapping[str, Sequence[Row]], fresh: Callable[[], TunnelDetector]) -> list[Leak]:
    """One row a rate, over the busiest client of the background."""
    client = max(background, key=lambda name: (len(background[name]), name), default=CLIENT)
    own = sorted(background.get(client, ()), key=itemgetter(0))[:BACKGROUND_MAX]
    start = own[0][0] if own else START
    return [measure(fresh(), own, tunnel(rate, CARRIED, client, start), rate, CARRIED) for rate in RATES]


def encoded(rng: random.Random, size: int) -> str:
    """`size` random bytes as base32 labels of at most 63 characters."""
    text = base64.b32encode(rng.randbytes(size)).decode().rstrip("=").lower()
    return ".".join(text[at : at + 63] for at in range(0, len(text), 63))


def tunnel(rate: float, carried: int, client: str, start: float, name: Maker = encoded) -> Iterator[Row]:
    """Queries at `rate` bytes a second, evenly spaced with a fifth of jitter, for SPAN_S or LIMIT_BYTES."""
    rng = random.Random(f"{rate} {carried}")  # noqa: S311
    step = carried / rate
    for i in range(min(int(SPAN_S / step), LIMIT_BYTES // carried)):
        ts = start + (i + rng.random() / 5) * step
        wire = from_text(f"{name(rng, carried)}.{DOMAIN}")
        yield ts, client, wire, 1, len(wire) + 17, 0, 1, len(wire) + 40, 60, 12.0, ""


def measure(
    detector: TunnelDetector, background: Sequence[Row], sent: Iterator[Row], rate: float, carried: int
) -> Leak:
    """Lay one tunnel over the background and find it; both in time order, of one client."""
    rows = list(sent)
    mixed = sorted([*(row for row in background if rows and row[0] <= rows[-1][0]), *rows], key=itemgetter(0))
    for at in range(0, len(mixed), AT_ONCE):
        for incident in detector.detect(batch_of(mixed[at : at + AT_ONCE])).incidents:
            if incident.client == rows[0][1] and incident.domain == domain_text(rows[0][2]):
                queries = sum(row[0] <= incident.detected_at for row in rows)
                return Leak(rate, carried, incident.detected_at - rows[0][0], queries * carried, queries)
    return Leak(rate, carried, None, None, None)
