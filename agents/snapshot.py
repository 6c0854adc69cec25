"""What the windows hold, as a file: long windows survive a restart, and cost no scan of a table."""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from agents.flows import Flows
from agents.windows import SUMS, WINDOWS_S, Flow, Window

FORMAT = 2
AT_ONCE = 200
FLOWS_MAX = 50_000
"""Flows kept, those that leaked most first: what leaked nothing yet starts anew."""
LEVEL = 1  # of zlib: a snapshot is written every minute


def dump(flows: Flows, guard: AbstractContextManager[Any] | None = None) -> bytes:
    """The state of all flows, compressed: a line of JSON a flow, after a head line.

    `guard` is held for AT_ONCE flows at a time: whoever judges waits for milliseconds, and so does everything else.
    """
    held = nullcontext() if guard is None else guard
    with held:
        loudest = sorted(flows.flows.items(), key=lambda item: (-item[1].leaked_bytes, item[0]))[:FLOWS_MAX]
    packer = zlib.compressobj(LEVEL)
    parts = [packer.compress(_line({"format": FORMAT, "windows": WINDOWS_S, "sums": SUMS, "flows": len(loudest)}))]
    for start in range(0, len(loudest), AT_ONCE):
        with held:
            lines = [_line([*key, _flow_json(flow)]) for key, flow in loudest[start : start + AT_ONCE]]
        parts.append(packer.compress(b"".join(lines)))
    return b"".join((*parts, packer.flush()))


def load(data: bytes, flows: Flows) -> int:
    """Put a dumped state into `flows`; returns how many flows. Raises ValueError for anything but a whole dump."""
    try:
        unpacker = zlib.decompressobj()
        head, *lines = unpacker.decompress(data).splitlines()
        state = json.loads(head)
        if (state["format"], tuple(state["windows"]), state["sums"]) != (FORMAT, WINDOWS_S, SUMS):
            raise ValueError("cannot restore windows: written by another version")
        if not unpacker.eof or len(lines) != state["flows"]:
            raise ValueError("cannot restore windows: the file is cut off")
        rows = [json.loads(line) for line in lines[: flows.keys_max]]
        found = {(client, domain): _flow_of(row) for client, domain, row in rows}
    except (zlib.error, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"cannot restore windows: damaged file ({type(error).__name__})") from None
    flows.take(found)
    return len(found)


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _flow_json(flow: Flow) -> dict[str, Any]:
    sketches = (flow.memory.sketch, flow.memory.older)
    return {
        "seen": [flow.first_seen, flow.last_seen],
        "counts": [flow.queries, flow.names, flow.encoded_names, flow.bytes_in],
        "bytes": [flow.leaked_bytes, flow.encoded_bytes, flow.settled_bytes],
        "alone": flow.alone,
        "exact": sorted(flow.memory.exact),
        "sketches": [None if sketch is None else _text(bytes(sketch)) for sketch in sketches],
        "samples": [[_text(wire), qtype] for wire, qtype in flow.samples],
        "qtypes": sorted(flow.qtypes.items()),
        "windows": _windows_json(flow.windows),
    }


def _flow_of(row: dict[str, Any]) -> Flow:
    flow = Flow(row["seen"][0])
    flow.last_seen = row["seen"][1]
    flow.queries, flow.names, flow.encoded_names, flow.bytes_in = row["counts"]
    flow.leaked_bytes, flow.encoded_bytes, flow.settled_bytes = row["bytes"]
    flow.alone = bool(row["alone"])
    flow.memory.exact = set(row["exact"])
    flow.memory.sketch, flow.memory.older = (
        None if text is None else bytearray(base64.b64decode(text)) for text in row["sketches"]
    )
    flow.samples = [(base64.b64decode(text), qtype) for text, qtype in row["samples"]]
    flow.qtypes = dict(row["qtypes"])
    _fill(flow.windows, row["windows"])
    return flow


def _windows_json(windows: tuple[Window, ...]) -> list[list[Any]]:
    return [[window.bucket, window.now, window.before] for window in windows]


def _fill(windows: tuple[Window, ...], rows: list[list[Any]]) -> None:
    for window, (bucket, now, before) in zip(windows, rows, strict=True):
        window.bucket, window.now, window.before = bucket, list(now), list(before)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
