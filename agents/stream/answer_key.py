"""The key of answers' hashes, one for all that hear the same clients: data that two of them see counts once."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np
import structlog

from agents.core.column_kernels import Key
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.stream.record import ANSWER_KEY

ANSWER_KEY_FILE = "answer_key.json"
"""In the folder of the state of a host that hears queries: the key outlives a restart, and a bus that is away."""
_HALF_MAX = 2**63
_log = structlog.get_logger()


class SharedKey:
    """A key in memory that all processes share which are forked later. A key that is read while it is replaced may be
    half of each: data counts once more for it."""

    def __init__(self, key: Key) -> None:
        self._cells = np.frombuffer(mmap.mmap(-1, 16), np.int64)
        self.put(key)

    @property
    def key(self) -> Key:
        """The key that is in force."""
        first, second = self._cells.tolist()
        return first, second

    def put(self, key: Key) -> None:
        """Replace it."""
        self._cells[:] = key


ANSWERS = SharedKey(ANSWER_KEY)
"""Of all processes that one supervisor forks."""


def packed_key(key: Key) -> bytes:
    """As JSON."""
    return json.dumps(list(key)).encode()


def answer_key_of(data: bytes) -> Key:
    """What `packed_key` wrote. Raises FormatError."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    whole = isinstance(found, list) and len(found) == 2 and all(type(one) is int for one in found)
    if not whole or not all(0 <= one < _HALF_MAX for one in found):
        raise FormatError("cannot read the key of answers: it is damaged")
    return found[0], found[1]


class HeldKey:
    """The shared key and its file."""

    def __init__(self, path: Path, shared: SharedKey = ANSWERS) -> None:
        self._path, self._shared = path, shared

    @property
    def key(self) -> Key:
        """The key that is in force."""
        return self._shared.key

    def begin(self) -> None:
        """Put the key of the file in force; where there is none that can be read, keep the one of this start.

        A folder that cannot be written stops nothing: the next start has another key, and data counts once more.
        """
        try:
            self._shared.put(answer_key_of(self._path.read_bytes()))
        except (OSError, FormatError) as error:
            if not isinstance(error, FileNotFoundError):
                _log.warning("answer_key_not_read", path=str(self._path), error=str(error))
            try:
                self._write(self.key)
            except OSError as problem:
                _log.warning("answer_key_not_kept", path=str(self._path), error=str(problem))

    def take(self, key: Key) -> None:
        """Put another key in force, and keep it. Raises OSError; then it is in force until the next start."""
        if key != self.key:
            self._shared.put(key)
            self._write(key)
            _log.info("answer_key_taken")

    def _write(self, key: Key) -> None:
        write_atomic(self._path, packed_key(key), PRIVATE_MODE)
