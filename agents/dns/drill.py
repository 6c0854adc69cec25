"""The drill: a synthetic tunnel below a zone that nobody owns, by which this program sees whether it is seen.

Names say which drill and which intake they are of. Whoever judges takes those that were asked for apart from all other
traffic, and nothing else below the zone: a host could tunnel there to a server of its own.
"""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from agents.core.files import json_state
from agents.core.types import QueryBatch, Row, batch_of
from agents.dns.name import from_text, to_text

DRILL_ZONE = "dns-tunnel-drill.invalid"
"""Names below `invalid` exist nowhere (RFC 6761 section 6.4): nobody is asked for them but who is drilled."""
DRILL_WIRE = from_text(DRILL_ZONE)
DRILL_NAMES = 40
"""Names of one drill through one intake; each has 30 bytes of made-up data."""
DRILL_REQUEST = "drill_request.json"
"""The file by which collector and receiver are asked to put such names into their rings."""
_NAME = re.compile(r"[0-9a-f]{60}\.([a-z0-9]{1,20})-([0-9a-f]{8})\." + re.escape(DRILL_ZONE), re.ASCII)


def drill_names(drill: str, intake: str) -> list[bytes]:
    """Names in wire form. drill: 8 hexadecimal digits; intake: letters and digits."""
    made = random.Random(f"{drill}{intake}")  # noqa: S311 - no secret
    return [from_text(f"{made.randbytes(30).hex()}.{intake}-{drill}.{DRILL_ZONE}") for _ in range(DRILL_NAMES)]


def drill_of(name: bytes) -> tuple[str, str] | None:
    """Drill and intake of a name in wire form; None for any other name."""
    found = _NAME.fullmatch(to_text(name).lower())
    return (found[2], found[1]) if found else None


def requested(path: Path) -> str:
    """The drill that a request's file asks for; "" where there is none."""
    drill = json_state(path).get("drill")
    return drill if isinstance(drill, str) and re.fullmatch("[0-9a-f]{8}", drill) else ""


def injected(drill: str, intake: str = "collector") -> QueryBatch:
    """What a collector or a receiver puts into its ring for a drill."""
    now = time.time()
    rows: list[Row] = [
        (now, "127.0.0.1", name, 16, len(name) + 17, 3, 0, -1, -1, float("nan"), "")
        for name in drill_names(drill, intake)
    ]
    return batch_of(rows)
