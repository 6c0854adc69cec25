"""Snapshots: flows and windows as a file, so that long windows survive a restart without a scan of the query table."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from agents.core.archive import MAGIC, Archive, Kinds, arrays_of, pack, unpack
from agents.core.column_kernels import Key
from agents.core.files import UNPACKED_MAX
from agents.core.npz import FormatError
from agents.detection.counting import flow_kernels
from agents.detection.counting.flow_kernels import SAMPLES
from agents.detection.counting.seen_kernels import ROW_WORDS, SIZE_MIN
from agents.detection.flows import Flows, Past, packed_past, unpacked_past
from agents.detection.limits import SCATTERED
from agents.detection.state import DETAIL, FLOW, FLOW_SINCE, NONE, OLD_SUMS, OLD_WINDOWS, WINDOWS, Room
from agents.dns.name import domain_text

FORMAT, OLD_FORMAT = 6, 5
"""OLD_FORMAT is that of release 0.1, which had a row of windows and details for each flow, and samples as JSON."""
FLOWS_MAX = 200_000
"""Flows kept, at most; those that leaked most are kept first."""
DAYS = ("day", "today", "yesterday")
OLD_ARRAYS = {"flows": FLOW, "windows": WINDOWS, "details": DETAIL, "keys": np.dtype(np.uint64)}
_SHORT = {"single": np.dtype((np.float32, (OLD_SUMS,)))}
SHORT_FLOW = np.dtype(
    [(name, _SHORT.get(name, FLOW[name])) for name in FLOW.names or () if name not in FLOW_SINCE], align=True
)
"""The flows of release 0.1, and of 0.2 before answers were hashed."""
ARRAYS = OLD_ARRAYS | {
    "days": np.dtype(np.int32),
    "sample_counts": np.dtype(np.uint8),
    "sample_qtypes": np.dtype(np.uint16),
    "sample_sizes": np.dtype(np.uint8),
    "sample_bytes": np.dtype(np.uint8),
}
ROWS: Kinds = {"flows": FLOW, "windows": WINDOWS}
SHORT_ROWS: Kinds = {"flows": SHORT_FLOW, "windows": OLD_WINDOWS}
Samples = list[tuple[tuple[bytes, int], ...]]


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
    pasts: list[tuple[int, PastRow]]
    days: list[tuple[Int32, Int32, Int32]] = []  # of OLD_FORMAT, for each client: DAYS
    samples: list[list[tuple[str, int]]] = []  # of OLD_FORMAT


@dataclass(frozen=True, slots=True)
class Kept:
    """Copied flows, those that leaked most first. `flows`, `windows`, `details` and `samples` have a row a flow."""

    flows: NDArray[Any]  # FLOW; `client` indexes `clients`, places in other arrays have no meaning
    windows: NDArray[Any]  # WINDOWS; zeros if the flow has none
    details: NDArray[Any]  # DETAIL; zeros if the flow has none
    keys: NDArray[np.uint64]  # keys that each flow remembers: its piece, or its filter and then the older filter
    clients: list[str]
    days: NDArray[np.int32]  # of each client: DAYS
    samples: Samples
    pasts: dict[int, Past]
    hash_key: Key


def dump_flows(flows: Flows, guard: AbstractContextManager[Any] | None = None, samples: bool = True) -> bytes:
    """The state of all flows, compressed. `guard` is held while it is copied, not while it is packed.

    samples: of their names, too.
    """
    with nullcontext() if guard is None else guard:
        kept = _copy_out(flows, FLOWS_MAX)
    arrays = {
        "flows": kept.flows,
        "windows": kept.windows[kept.flows["windows"] != NONE],
        "details": kept.details[kept.flows["detail"] != NONE],
        "keys": kept.keys,
        "days": kept.days.reshape(-1),
        **_packed_samples(kept.samples if samples else [()] * len(kept.samples)),
    }
    head = {
        "format": FORMAT,
        "key": kept.hash_key,
        "layout": _layout(ROWS),
        "clients": kept.clients,
        "pasts": [[row, packed_past(past)] for row, past in kept.pasts.items()],
    }
    return pack(head, arrays)


def load_flows(data: bytes, flows: Flows) -> int:
    """Put a dumped state into new, empty `flows`; returns how many. Raises FormatError unless the dump is complete."""
    try:
        return _copy_in(flows, _read(data))
    except FormatError as error:
        raise FormatError(f"cannot restore windows: {error}") from None


ByDomain = Callable[[str, str], bool | None]
"""Whether what a client has below a domain is wanted ("" = the domain is not known); None = the client counts as a
whole."""


def load_some_flows(
    files: Sequence[tuple[bytes, Callable[[str], bool]]], flows: Flows, by_domain: ByDomain | None = None
) -> int:
    """Put flows of some clients out of several dumps into new, empty `flows`; returns how many.

    files: a dump, and which of its clients are wanted. by_domain: of clients that count by domain; of two dumps, the
    flow that carried more is taken, or that of the later one. Raises FormatError unless all dumps are complete, and of
    one key, which is that of `flows`.
    """
    try:
        some = [_of_clients(_read(data), wanted, by_domain) for data, wanted in files]
        if any(one.hash_key != flows.key for one in some):
            raise FormatError("written by detectors that shared nothing with these")
        if not some:
            return 0
        return _copy_in(flows, _as_one(some) if by_domain is None else _newest(_as_one(some)))
    except FormatError as error:
        raise FormatError(f"cannot restore windows: {error}") from None


def key_of_dump(data: bytes) -> Key:
    """The key of the hashes in a dump. Raises FormatError."""
    try:
        return _read(data).hash_key
    except FormatError as error:
        raise FormatError(f"cannot restore windows: {error}") from None


def _of_clients(kept: Kept, wanted: Callable[[str], bool], by_domain: ByDomain | None) -> Kept:
    held = np.array([wanted(client) for client in kept.clients], np.bool_)[kept.flows["client"]]
    if by_domain is not None:
        parted = np.array([by_domain(client, "") is not None for client in kept.clients], np.bool_)
        for row in np.flatnonzero(parted[kept.flows["client"]]).tolist():
            client = kept.clients[int(kept.flows["client"][row])]
            held[row] = bool(by_domain(client, _domain_of(kept.flows[row], kept.samples[row])))
    return _rows_of(kept, held)


def _domain_of(flow: np.void, samples: tuple[tuple[bytes, int], ...]) -> str:
    if flow["scattered"]:
        return SCATTERED
    return domain_text(samples[0][0].lower()) if samples else ""


def _newest(kept: Kept) -> Kept:
    """Of flows of one client below one domain, that which carried most; of equal ones, that of the later file."""
    numbers = {client: number for number, client in reversed(list(enumerate(kept.clients)))}
    of = np.array([numbers[client] for client in kept.clients], np.int64)[kept.flows["client"]]
    keys = of, kept.flows["domain"], kept.flows["scattered"]
    order = np.lexsort((-np.arange(len(of)), -kept.flows["leaked"], *keys))
    again = np.zeros(len(order), np.bool_)
    again[1:] = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    held = np.ones(len(order), np.bool_)
    held[order[again]] = False
    return kept if held.all() else _rows_of(kept, held)


def _rows_of(kept: Kept, held: NDArray[np.bool_]) -> Kept:
    rows, words = np.flatnonzero(held), flow_kernels.words_of(kept.flows)
    numbers = {row: number for number, row in enumerate(rows.tolist())}
    return replace(
        kept,
        flows=kept.flows[rows],
        windows=kept.windows[rows],
        details=kept.details[rows],
        keys=kept.keys[np.repeat(held, words)],
        samples=[kept.samples[row] for row in rows.tolist()],
        pasts={numbers[row]: past for row, past in kept.pasts.items() if row in numbers},
    )


def _as_one(some: Sequence[Kept]) -> Kept:
    flows, pasts, clients, before = [], dict[int, Past](), list[str](), 0
    for one in some:
        kept = one.flows.copy()
        kept["client"] += len(clients)
        pasts |= {row + before: past for row, past in one.pasts.items()}
        flows.append(kept)
        clients += one.clients
        before += len(kept)
    columns = {name: np.concatenate([getattr(one, name) for one in some]) for name in ("windows", "details", "keys")}
    return Kept(
        flows=np.concatenate(flows),
        clients=clients,
        days=np.concatenate([one.days for one in some]),
        samples=[one for kept in some for one in kept.samples],
        pasts=pasts,
        hash_key=some[0].hash_key,
        **columns,
    )


def _read(data: bytes) -> Kept:
    archive = unpack(data, UNPACKED_MAX) if data.startswith(MAGIC) else _old_archive(data)
    head = _head(archive.line)
    rows = {_layout(kinds): kinds for kinds in (ROWS, SHORT_ROWS)}.get(head.layout)
    if rows is None or head.format not in (FORMAT, OLD_FORMAT):
        raise FormatError("written by another version")
    kept = (_kept if head.format == FORMAT else _old_kept)(head, archive.body, rows)
    words = flow_kernels.words_of(kept.flows)
    if (words < 0).any() or words.sum() != len(kept.keys) or len(kept.flows) != len(kept.samples):
        raise FormatError("the file is cut off")
    if len(words) and not 0 <= kept.flows["client"].min() <= kept.flows["client"].max() < len(kept.clients):
        raise FormatError("a flow of no client")
    return kept


def _old_archive(data: bytes) -> Archive:
    unpacker = zlib.decompressobj()
    try:
        whole = unpacker.decompress(data, UNPACKED_MAX)
    except zlib.error as error:
        raise FormatError(f"damaged file ({error})") from None
    if not unpacker.eof:
        raise FormatError("the file is cut off")
    line, _, body = whole.partition(b"\n")
    return Archive(line, memoryview(body))


def _kept(head: Head, body: memoryview, rows: Kinds) -> Kept:
    arrays = _arrays(head, body, ARRAYS, rows)
    kept = arrays["flows"]
    return Kept(
        flows=kept,
        windows=_spread(arrays["windows"], kept["windows"]),
        details=_spread(arrays["details"], kept["detail"]),
        keys=arrays["keys"],
        clients=head.clients,
        days=_days(arrays["days"], head.clients),
        samples=_unpacked_samples(arrays),
        pasts={row: unpacked_past(past) for row, past in head.pasts},
        hash_key=head.key,
    )


def _old_kept(head: Head, body: memoryview, rows: Kinds) -> Kept:
    arrays = _arrays(head, body, OLD_ARRAYS, rows)
    if len({len(arrays[name]) for name in ("flows", "windows", "details")}) != 1:
        raise FormatError("the file is cut off")
    return Kept(
        **arrays,
        clients=head.clients,
        days=_days(np.array(head.days, np.int32).reshape(-1), head.clients),
        samples=[tuple((_decoded(text), qtype) for text, qtype in one) for one in head.samples],
        pasts={row: unpacked_past(past) for row, past in head.pasts},
        hash_key=head.key,
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:
        raise FormatError("a sample is no base64") from None


def _arrays(head: Head, body: memoryview, kinds: Kinds, rows: Kinds) -> dict[str, NDArray[Any]]:
    """The arrays of a file with rows of these types; fields and sums that they lack are zeros."""
    if head.lengths.keys() != kinds.keys():
        raise FormatError("the file is cut off")
    arrays = arrays_of(body, head.lengths, {**kinds, **rows})
    for of, kind in rows.items() if rows is not ROWS else ():
        found = arrays[of]
        arrays[of] = np.zeros(len(found), ROWS[of])
        for name in kind.names or ():
            shape = kind[name].shape
            arrays[of][name][tuple(slice(size) for size in (len(found), *shape))] = found[name]
    return arrays


def _days(column: NDArray[np.int32], clients: list[str]) -> NDArray[np.int32]:
    if len(column) != len(DAYS) * len(clients):
        raise FormatError("the file is cut off")
    return column.reshape(-1, len(DAYS))


def _spread(rows: NDArray[Any], places: NDArray[np.int32]) -> NDArray[Any]:
    """A row for each flow: those of the flows that have one, in order, and zeros."""
    held = places != NONE
    if held.sum() != len(rows):
        raise FormatError("the file is cut off")
    out = np.zeros(len(places), rows.dtype)
    out[held] = rows
    return out


def _packed_samples(samples: Samples) -> dict[str, NDArray[Any]]:
    flat = [one for some in samples for one in some]
    return {
        "sample_counts": np.fromiter(map(len, samples), np.uint8, len(samples)),
        "sample_qtypes": np.fromiter([qtype for _, qtype in flat], np.uint16, len(flat)),
        "sample_sizes": np.fromiter([len(wire) for wire, _ in flat], np.uint8, len(flat)),
        "sample_bytes": np.frombuffer(b"".join([wire for wire, _ in flat]), np.uint8),
    }


def _unpacked_samples(arrays: dict[str, NDArray[Any]]) -> Samples:
    counts, sizes = arrays["sample_counts"], arrays["sample_sizes"]
    data, qtypes = arrays["sample_bytes"].tobytes(), arrays["sample_qtypes"].tolist()
    if (len(counts), len(sizes), len(data)) != (len(arrays["flows"]), len(qtypes), int(sizes.sum(dtype=np.int64))):
        raise FormatError("the file is cut off")
    if int(counts.sum(dtype=np.int64)) != len(sizes):
        raise FormatError("the file is cut off")
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    flat = [(data[begin:end], qtype) for begin, end, qtype in zip([0, *ends], ends, qtypes, strict=False)]
    own = zip(counts.tolist(), np.cumsum(counts, dtype=np.int64).tolist(), strict=True)
    return [tuple(flat[end - count : end]) for count, end in own]


def _head(line: bytes) -> Head:
    try:
        return Head.model_validate_json(line)
    except ValidationError as error:  # its own text would show the file's contents: names that people looked up
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FormatError(f"damaged file ({where} {first['msg']})") from None


def _layout(rows: Kinds) -> str:
    """A checksum of the fields of all arrays, with these of flows and windows: another layout is another format."""
    return str(zlib.crc32(repr([kind.descr for kind in {**OLD_ARRAYS, **rows}.values()]).encode()))


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
        samples=[flows.samples.get(at, ()) for at in kept["detail"].tolist()],
        pasts={i: past for i, row in enumerate(rows.tolist()) if (past := flows.pasts.of(row))},
        hash_key=flows.key,
    )


def _copy_in(flows: Flows, kept: Kept) -> int:
    words, room = flow_kernels.words_of(kept.flows), flows.state.room
    space = room[Room.POOL_MAX] - 2 * ROW_WORDS - (room[Room.KEYS_MAX] << SIZE_MIN)
    fits = np.searchsorted(np.cumsum(words), space, side="right")
    take = int(min(len(words), room[Room.KEYS_MAX], fits))
    if flows.network is not flows:
        flows.key = flows.network.key = kept.hash_key
    elif flows.key != kept.hash_key:
        raise FormatError("written at another time than the windows of clients")
    flows.make_room_for(take, int(words[:take].sum()))
    asked, clients = np.unique(kept.flows["client"][:take]), np.full(len(kept.clients), NONE, np.int32)
    asked = asked[np.lexsort((kept.days[asked, 1], kept.days[asked, 0]))]  # of a client twice, the most domains count
    clients[asked] = flows.rows_of([kept.clients[number] for number in asked.tolist()])
    details = kept.details.copy()
    details["samples"] = np.minimum(np.fromiter(map(len, kept.samples), np.int32, len(details)), SAMPLES)
    for name, counts in zip(DAYS, kept.days[asked].T, strict=True):
        flows.state.clients[name][clients[asked]] = counts
    flow_kernels.copy_in(flows.state, kept.flows[:take], kept.windows, details, kept.keys, clients)
    at = flows.state.flows["detail"][:take].tolist()
    flows.samples = {row: samples for row, samples in zip(at, kept.samples, strict=False) if row != NONE}
    for row, past in kept.pasts.items():
        if 0 <= row < take:
            flows.pasts.put(row, flows.state.flows[row], past)
    if flows.network is not flows:
        flows.greet_anew()
    return take
