"""How much leaves before a tunnel of a given speed is found, on a day of benign traffic.

    python -m tests.leak_curve [--json PATH|-]        writes the table of docs/detection-slow.md

Each tunnel is one client's, sends random bytes as base32 below one domain for a day, and is laid over the traffic of
the look-alike suite. Bytes are the sender's own: what it got out, not what the detector counted.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from agents.sources.batcher import Row
from tests.detecting import START, incidents_of, query
from tests.lookalikes import ROLES, traffic

RATES = (0.0116, 0.02, 0.1, 0.7, 10.0, 1000.0)
"""Bytes a second; 0.0116 are 1,000 bytes a day."""
SHAPES = (6, 30, 110)
"""Bytes that one name carries: a few letters, a label, a full name."""
SPAN_S, LIMIT_BYTES = 86_400.0, 20_000
DOMAIN, CLIENT = "data.example-tunnel.net", "10.20.0.7"


@dataclass(frozen=True, slots=True)
class Found:
    """When a tunnel was found; None where it was not within the day."""

    rate: float  # bytes a second
    carried: int  # bytes a name
    seconds: float | None
    bytes_out: int | None
    queries: int | None


def encoded(rng: random.Random, size: int) -> str:
    """`size` random bytes as base32 labels of at most 63 characters."""
    text = base64.b32encode(rng.randbytes(size)).decode().rstrip("=").lower()
    return ".".join(text[at : at + 63] for at in range(0, len(text), 63))


def tunnel(rate: float, carried: int, name: Callable[[random.Random, int], str] = encoded) -> Iterator[Row]:
    """Queries at `rate` bytes a second, evenly spaced with a fifth of jitter, for a day or LIMIT_BYTES."""
    rng = random.Random(f"{rate} {carried}")
    step = carried / rate
    for i in range(min(int(SPAN_S / step), LIMIT_BYTES // carried)):
        yield query(START + (i + rng.random() / 5) * step, CLIENT, f"{name(rng, carried)}.{DOMAIN}")


def measure(rate: float, carried: int, background: list[Row]) -> Found:
    """Lay one tunnel over the background and find it."""
    rows = list(tunnel(rate, carried))
    until = rows[-1][0] if rows else START
    mixed = sorted([*(row for row in background if row[0] <= until), *rows], key=lambda row: row[0])
    for incident in incidents_of(mixed):
        if incident.client == CLIENT and incident.domain == "example-tunnel.net":
            sent = sum(row[0] <= incident.detected_at for row in rows)
            return Found(rate, carried, incident.detected_at - rows[0][0], sent * carried, sent)
    return Found(rate, carried, None, None, None)


def curve(seed: int = 1) -> list[Found]:
    """Every rate with every shape, over one client's day of the look-alike suite."""
    background = traffic(seed, ROLES[1:2])
    own = [row for row in background if row[1] == "10.20.0.7"]
    return [measure(rate, carried, own) for rate in RATES for carried in SHAPES]


def table(found: list[Found]) -> str:
    """As Markdown."""
    lines = ["| bytes/s | bytes a name | found after | bytes out | queries |", "| ---: | ---: | ---: | ---: | ---: |"]
    for row in found:
        after = "not within a day" if row.seconds is None else _span(row.seconds)
        shown = ("–" if number is None else f"{number:,}" for number in (row.bytes_out, row.queries))
        lines.append(f"| {row.rate:g} | {row.carried} | {after} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="write JSON there, - = standard output")
    target = parser.parse_args().json
    found = curve()
    text = json.dumps([asdict(row) for row in found])
    if target == "-":
        print(text)
        return
    if target:
        Path(target).write_text(text + "\n", "utf-8")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
