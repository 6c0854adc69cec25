"""One query as a record of fixed size: a datapath writes it and a detector reads it, without an object in between."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, hash_pieces
from agents.core.columns import Coded, distinct_rows, gathered
from agents.core.text import MAPPED
from agents.core.types import FORWARDED, UNKNOWN, QueryBatch
from agents.dns.message import ANSWER_TYPES_MAX, type_name
from agents.dns.name import NAME_MAX

RECORD = np.dtype(
    [
        ("ts", np.float64),  # Unix seconds
        ("ttl_min", np.int64),  # seconds, or -1
        ("ans_hash", np.uint64),  # below 2**63, or 0
        ("rtt_ms", np.float32),  # milliseconds, or NaN
        ("qlen", np.int32),
        ("ancount", np.int32),  # or -1
        ("rlen", np.int32),  # or -1
        ("ans_bytes", np.int32),  # or -1
        ("negative_ttl", np.int32),  # seconds, or -1
        ("qtype", np.uint16),
        ("rcode", np.int16),  # or -1
        ("ans_types", np.uint16, (ANSWER_TYPES_MAX,)),  # distinct answer types in order, 0 after the last
        ("client", np.uint8, (16,)),  # IPv6 address, or an IPv4 one mapped into it (RFC 4291 section 2.5.5.2)
        ("qname_size", np.uint8),
        ("qname", np.uint8, (NAME_MAX,)),  # wire form without the root byte, in the case it was sent in
        ("cached", np.int8),  # types.FORWARDED, FROM_CACHE or FROM_CACHE_STALE
        ("origin", np.uint8),  # what heard it, see sources.origins
        ("spare", np.uint8, (3,)),
    ]
)
"""344 bytes. The columns are those of types.QueryBatch."""

_PACKED = struct.Struct(f"=dqQfiiiiiHh{2 * ANSWER_TYPES_MAX}s16sB{NAME_MAX}sbB3x")
"""RECORD as a struct: the quickest way to write a single record."""
assert RECORD.fields is not None
_QNAME_AT = RECORD.fields["qname"][1]
ANSWER_KEY: Key = secrets.randbits(63), secrets.randbits(63)
"""Key of `ans_hash`, of all processes that one supervisor forks: without it, an attacker cannot make new data look
known. After a restart, data that was known counts once more."""
_KEY = np.uint64(secrets.randbits(64)), np.uint64(secrets.randbits(64))
"""Key of the clients' hashes: without it, an attacker cannot make two clients collide."""


@lru_cache(maxsize=65_536)
def client_text(address: bytes) -> str:
    """Textual form of 16 address bytes."""
    if address.startswith(MAPPED):
        return socket.inet_ntoa(address[12:])
    return str(ipaddress.IPv6Address(address))


def mapped(address: bytes) -> bytes:
    """The 16 bytes of an address of 4 or 16 bytes."""
    return MAPPED + address if len(address) == 4 else address


@lru_cache(maxsize=65_536)
def client_bytes(client: str) -> bytes:
    """16 address bytes of a textual IPv4 or IPv6 address. Raises ValueError."""
    address = ipaddress.ip_address(client.partition("%")[0])
    return mapped(address.packed)


@lru_cache(maxsize=4096)
def _types_text(types: bytes) -> str:
    return ",".join(type_name(number) for number in np.frombuffer(types, np.uint16).tolist() if number)


@lru_cache(maxsize=4096)
def _types_bytes(types: tuple[int, ...]) -> bytes:
    return struct.pack(f"={ANSWER_TYPES_MAX}H", *types, *[0] * (ANSWER_TYPES_MAX - len(types)))


def packed_record(
    ts: float,
    client: bytes,
    qname: bytes,
    qtype: int,
    qlen: int,
    rcode: int,
    ancount: int,
    rlen: int,
    ttl_min: int,
    rtt_ms: float,
    types: tuple[int, ...],
    cached: int = FORWARDED,
    ans_hash: int = 0,
    ans_bytes: int = UNKNOWN,
    negative_ttl: int = UNKNOWN,
    origin: int = 0,
) -> bytes:
    """The bytes of one RECORD, fields as QueryBatch has them. client: 16 address bytes; types: numbers, in order."""
    kinds = _types_bytes(types)
    return _PACKED.pack(
        ts, ttl_min, ans_hash, rtt_ms, qlen, ancount, rlen, ans_bytes, negative_ttl, qtype, rcode, kinds, client,
        len(qname), qname, cached, origin,
    )  # fmt: skip


def batch_of_records(records: NDArray[np.void]) -> QueryBatch:
    """Columns of n records. Copies: the records may be overwritten afterwards."""
    data = records.view(np.uint8).reshape(-1)
    begins = np.arange(len(records)) * RECORD.itemsize + _QNAME_AT
    return QueryBatch(
        ts=records["ts"].copy(),
        client=_coded(records["client"], client_text),
        qname=gathered(data, begins, records["qname_size"].astype(np.int64)),
        qtype=records["qtype"].copy(),
        qlen=records["qlen"].copy(),
        rcode=records["rcode"].copy(),
        ancount=records["ancount"].copy(),
        rlen=records["rlen"].copy(),
        ttl_min=records["ttl_min"].copy(),
        rtt_ms=records["rtt_ms"].copy(),
        ans_types=_coded(records["ans_types"], _types_text),
        cached=records["cached"].copy(),
        ans_hash=records["ans_hash"].copy(),
        ans_bytes=records["ans_bytes"].copy(),
        negative_ttl=records["negative_ttl"].copy(),
        origin=records["origin"].copy(),
    )


def _coded(column: NDArray[np.generic], text: Callable[[bytes], str]) -> Coded:
    """A column of byte strings of one width as texts; each different value is converted once."""
    rows = np.ascontiguousarray(column).view(np.uint8)
    count, width = rows.shape
    begins, sizes, keys = np.arange(count) * width, np.full(count, width), np.empty(count, np.uint64)
    hash_pieces(rows.reshape(-1), begins, sizes, *_KEY, keys)
    codes, firsts = distinct_rows(keys)
    data = rows[firsts].tobytes()
    return Coded(codes, [text(data[at : at + width]) for at in range(0, len(data), width)])
