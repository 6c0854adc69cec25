"""Columns in one compressed file: a line of JSON, then arrays of known kinds, in a zstd frame with a checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.compression import zstd
from agents.core.npz import FormatError

MAGIC = b"\x28\xb5\x2f\xfd"
"""How zstd begins (RFC 8878 section 3.1.1)."""
OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}
"""Files are written every second or minute, and a damaged one must be noticed."""

Kinds = Mapping[str, np.dtype[Any]]


class Archive(NamedTuple):
    """line: the JSON, not yet read. body: the arrays behind it."""

    line: bytes
    body: memoryview


def pack(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file. `head` gets "lengths", the length of each array, in their order."""
    lengths = {name: array.size for name, array in arrays.items()}
    line = json.dumps({**head, "lengths": lengths}, separators=(",", ":")).encode() + b"\n"
    packer = zstd.ZstdCompressor(options=OPTIONS)
    parts = [packer.compress(part) for part in (line, *(array.tobytes() for array in arrays.values()))]
    return b"".join([*parts, packer.flush()])


def unpack(data: bytes, bytes_max: int) -> Archive:
    """Line and body. Raises FormatError unless the file is whole and takes at most `bytes_max` bytes."""
    unpacker = zstd.ZstdDecompressor()
    try:
        whole = unpacker.decompress(data, bytes_max)
    except zstd.ZstdError as error:
        raise FormatError(f"damaged file ({error})") from None
    if not unpacker.eof:
        raise FormatError("the file is cut off")
    line, _, _ = whole.partition(b"\n")
    return Archive(line, memoryview(whole)[len(line) + 1 :])


def arrays_of(body: memoryview, lengths: Mapping[str, int], kinds: Kinds) -> dict[str, NDArray[Any]]:
    """The arrays by name, read-only; lengths: in their order. Raises FormatError unless they fill the body."""
    if not lengths.keys() <= kinds.keys() or any(length < 0 for length in lengths.values()):
        raise FormatError("the file is cut off")
    if sum(length * kinds[name].itemsize for name, length in lengths.items()) != len(body):
        raise FormatError("the file is cut off")
    found, at = {}, 0
    for name, length in lengths.items():
        found[name] = np.frombuffer(body, kinds[name], length, at)
        at += length * kinds[name].itemsize
    return found
