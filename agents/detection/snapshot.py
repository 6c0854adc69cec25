"""Snapshots: flows and windows as a file, so that long windows survive a restart without a scan of the query table."""

from __future__ import annotations

import base64
import io
import json
import zlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from agents.core.column_kernels import Key
from agents.core.files import UNPACKED_MAX
from agents.detection import flow_kernels
from agents.detection.flow_kernels import SAMPLES, greet_all
from agents.detection.flows import Flows, Past, packed_past, unpacked_past
from agents.detection.seen_kernels import ROW_WORDS, SIZE_MIN
from agents.detection.state import DETAIL, FLOW, NONE, WINDOWS, Room

FORMAT = 5
FLOWS_MAX = 200_000
"""Flows kept, at most; those that leaked most are kept first."""
LEVEL = 1  # of zlib: a snapshot is written every minute
DAYS = ("day", "today", "yesterday")
ARRAYS = {"flows": FLOW, "windows": WINDOWS, "details": DETAIL, "keys": np.dtype(np.uint64)}


Word = Annotated[int, Field(ge=0, lt=1 << 64)]
Int32 = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
PastRow = tuple[float, float, int, int, int, float, float, int, list[tuple[int, int]], int, float | None]
"""See flows.packed_past."""


class Head(BaseModel):
    """The line before the arrays; pydantic raises a ValueError if it does not look like this."""

    format: int
    key: tuple[Word, Word]
    layout: str
    lengths: dict[str, Annotated[int, Field(ge=0)]]
    clients: list[str]
    days: list[tuple[Int32, Int32, Int32]]  # of each client: DAYS
    samples: list[list[tuple[str, int]]]
    pasts: list[tuple[int, PastRow]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Copied flows, those that leaked most first. `flows`, `windows`, `details` and `samples` have a row a flow."""

    flows: NDArray[Any]  # FLOW; `client` indexes `clients`, places in other arrays have no meaning
    windows: NDArray[Any]  # WINDOWS; zeros if the flow has none
    details: NDArray[Any]  # DETAIL; zeros if the flow has none
    keys: NDArray[np.uint64]  # keys that each flow remembers: its piece, or its filter and then the older filter
    clients: list[str]
    days: NDArray[np.int32]  # of each client: DAYS
    samples: list[list[tuple[bytes, int]]]
    pasts: dict[int, Past]
    hash_key: Key


def dump_flows(flows: Flows, guard: AbstractContextManager[Any] | None = None) -> bytes:
    """The state of all flows, compressed. `guard` is held while it is copied, not while it is packed."""
    with nullcontext() if guard is None else guard:
        kept = _copy_out(flows, FLOWS_MAX)
    arrays = {name: getattr(kept, name) for name in ARRAYS}
    head = {
        "format": FORMAT,
        "key": kept.hash_key,
        "layout": _layout(),
        "lengths": {name: len(array) for name, array in arrays.items()},
        "clients": kept.clients,
        "days": kept.days.tolist(),
        "samples": [[[_text(wire), qtype] for wire, qtype in samples] for samples in kept.samples],
        "pasts": [[row, packed_past(past)] for row, past in kept.pasts.items()],
    }
    out = io.BytesIO()
    packer = zlib.compressobj(LEVEL)
    for part in (json.dumps(head, separators=(",", ":")).encode() + b"\n", *(a.tobytes() for a in arrays.values())):
        out.write(packer.compress(part))
    out.write(packer.flush())
    return out.getvalue()


def load_flows(data: bytes, flows: Flows) -> int:
    """Put a dumped state into new, empty `flows`; returns how many. Raises ValueError unless the dump is complete."""
    unpacker = zlib.decompressobj()
    try:
        whole = unpacker.decompress(data, UNPACKED_MAX)
    except zlib.error as error:
        raise ValueError(f"cannot restore windows: damaged file ({error})") from None
    line, _, body = whole.partition(b"\n")
    if not unpacker.eof:
        raise ValueError("cannot restore windows: the file is cut off")
    head = _head(line)
    if head.format != FORMAT or head.layout != _layout():
        raise ValueError("cannot restore windows: written by another version")
    if head.lengths.keys() != ARRAYS.keys() or len(head.days) != len(head.clients):
        raise ValueError("cannot restore windows: the file is cut off")
    kept = Kept(
        **_arrays(head.lengths, body),
        clients=head.clients,
        days=np.array(head.days, np.int32).reshape(-1, len(DAYS)),
        samples=[[(base64.b64decode(text), qtype) for text, qtype in one] for one in head.samples],
        pasts={row: unpacked_past(past) for row, past in head.pasts},
        hash_key=head.key,
    )
    return _copy_in(flows, kept)


def _head(line: bytes) -> Head:
    try:
        return Head.model_validate_json(line)
    except ValidationError as error:  # its own text would show the file's contents: names that people looked up
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"cannot restore windows: damaged file ({where} {first['msg']})".strip()) from None


def _layout() -> str:
    """A checksum of the fields of all arrays: another layout is another format."""
    return str(zlib.crc32(repr([kind.descr for kind in ARRAYS.values()]).encode()))


def _arrays(lengths: dict[str, int], body: bytes) -> dict[str, NDArray[Any]]:
    found, at = {}, 0
    for name, kind in ARRAYS.items():
        end = at + int(lengths[name]) * kind.itemsize
        found[name] = np.frombuffer(body[at:end], kind)
        at = end
    if at != len(body) or len({len(found[name]) for name in ("flows", "windows", "details")}) != 1:
        raise ValueError("cannot restore windows: the file is cut off")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _copy_out(flows: Flows, most: int) -> Kept:
    state, rows = flows.state, np.array(flows.rows(lambda found: found["used"] == 1), np.int64)
    rows = rows[np.argsort(-state.flows["leaked"][rows], kind="stable")][:most]
    kept = state.flows[rows]
    numbers, kept["client"] = np.unique(kept["client"], return_inverse=True)
    names = {row: client for client, row in flows.clients.items()}
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(flow_kernels.words_of(kept), out=starts[1:])
    keys = np.zeros(starts[-1], np.uint64)
    flow_kernels.copy_keys(kept, state.pool, keys, starts)
    windows, details = state.windows[kept["windows"]], state.details[kept["detail"]]
    windows[kept["windows"] == NONE] = 0
    details[kept["detail"] == NONE] = 0
    return Kept(
        flows=kept,
        windows=windows,
        details=details,
        keys=keys,
        clients=[names[row] for row in numbers.tolist()],
        days=np.stack([state.clients[name][numbers] for name in DAYS], 1),
        samples=[list(flows.samples.get(at, ())) for at in kept["detail"].tolist()],
        pasts={i: past for i, row in enumerate(rows.tolist()) if (past := flows.pasts.of(row))},
        hash_key=flows.key,
    )


def _copy_in(flows: Flows, kept: Kept) -> int:
    words, room = flow_kernels.words_of(kept.flows), flows.state.room
    if len(kept.flows) != len(kept.samples) or (words < 0).any() or words.sum() != len(kept.keys):
        raise ValueError("cannot restore windows: the file is cut off")
    if len(words) and not 0 <= kept.flows["client"].min() <= kept.flows["client"].max() < len(kept.clients):
        raise ValueError("cannot restore windows: a flow of no client")
    space = room[Room.POOL_MAX] - 2 * ROW_WORDS - (room[Room.KEYS_MAX] << SIZE_MIN)
    fits = np.searchsorted(np.cumsum(words), space, side="right")
    take = int(min(len(words), room[Room.KEYS_MAX], fits))
    flows.key = kept.hash_key
    flows.make_room_for(take, int(words[:take].sum()))
    asked, clients = np.unique(kept.flows["client"][:take]), np.full(len(kept.clients), NONE, np.int32)
    clients[asked] = flows.rows_of([kept.clients[number] for number in asked.tolist()])
    details = kept.details.copy()
    details["samples"] = [min(len(samples), SAMPLES) for samples in kept.samples]
    for name, counts in zip(DAYS, kept.days[asked].T, strict=True):
        flows.state.clients[name][clients[asked]] = counts
    flow_kernels.copy_in(flows.state, kept.flows[:take], kept.windows, details, kept.keys, clients)
    at = flows.state.flows["detail"][:take].tolist()
    flows.samples = {row: tuple(samples) for row, samples in zip(at, kept.samples, strict=False) if row != NONE}
    for row, past in kept.pasts.items():
        if 0 <= row < take:
            flows.pasts.put(row, flows.state.flows[row], past)
    greet_all(flows.state)
    return take
