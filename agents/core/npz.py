"""A reader for .npz files from untrusted sources: it accepts only a stored zip of plain .npy members.

NumPy's own reader accepts compressed and encrypted members, pickles, and headers that are Python expressions, and
raises a dozen kinds of errors for other bytes. This reader checks each part before it uses it.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = re.compile(
    rb"\{'descr': '([<|][uif][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9]{0,9}(?:, ?[0-9]{1,9}){0,3},?)\), \} *\n",
    re.ASCII,
)
"""A header as NumPy writes it (numpy.lib.format, version 1.0)."""
_MAGIC = b"\x93NUMPY\x01\x00"


class FormatError(ValueError):
    """The bytes are not a file of this kind."""


def read_npz(data: bytes, bytes_max: int) -> dict[str, NDArray[Any]]:
    """The arrays by name, writable. Raises FormatError, also if they take more than `bytes_max` bytes."""
    return {name: _array(member) for name, member in _members(data, bytes_max).items()}


def json_of(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, Any]:
    """The JSON object in an array of bytes. Raises FormatError."""
    array = arrays.get(name)
    if array is None or array.dtype != np.uint8:
        raise FormatError(f"there is no {name}")
    return object_of(array.tobytes(), name)


def json_of_text(text: bytes | str, name: str) -> Any:
    """The JSON value in a text. Raises FormatError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{name} is no JSON") from None


def object_of(text: bytes | str, name: str = "the first line") -> dict[str, Any]:
    """The JSON object in a text. Raises FormatError."""
    found = json_of_text(text, name)
    if not isinstance(found, dict):
        raise FormatError(f"{name} is no JSON object")
    return found


def _members(data: bytes, bytes_max: int) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > bytes_max:
                raise FormatError(f"it unpacks to more than {bytes_max >> 20} MiB")
            if len({info.filename for info in infos}) < len(infos) or not all(map(_is_plain, infos)):
                raise FormatError("it is no zip of stored arrays")
            return {info.filename.removesuffix(".npy"): archive.read(info) for info in infos}
    except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, OSError) as error:
        raise FormatError(f"damaged file ({type(error).__name__})") from None
    except FormatError:
        raise
    except ValueError:  # a name that is not text, an offset below zero
        raise FormatError("damaged file") from None


def _is_plain(info: zipfile.ZipInfo) -> bool:
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    return stored and info.flag_bits == 0 and info.filename.endswith(".npy")


def _array(member: bytes) -> NDArray[Any]:
    body = 10 + int.from_bytes(member[8:10], "little")
    match = _HEADER.fullmatch(member[10:body])
    if not member.startswith(_MAGIC) or match is None:
        raise FormatError("a member is no plain array")
    kind, shape = np.dtype(match[1].decode()), tuple(int(size) for size in match[3].split(b",") if size.strip())
    if len(member) - body != math.prod(shape) * kind.itemsize:
        raise FormatError("a member has another size than its header says")
    flat = np.frombuffer(member, kind, offset=body).copy()
    return flat.reshape(shape, order="F" if match[2] == b"True" else "C")
