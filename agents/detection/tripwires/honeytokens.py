"""Honeytokens: made-up secrets that nothing has reason to look up; a name that contains one is an incident for certain.

A file holds each token's name and keyed hashes of pieces of it in every encoding, never the text: FILTER_BITS bits of
SipHash-1-3, by which names are searched, and DIGEST_BYTES bytes of BLAKE2b (RFC 7693). Whoever reads the file may test
guesses of a piece, of which each carries PIECE_BITS bits at least: the file is its owner's alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, keyed_hash
from agents.core.columns import Coded
from agents.core.errors import SettingsError, UsageError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.text import printable
from agents.detection.secrets import CHANGES_MIN, changes_in
from agents.detection.tripwires.encodings import encoded_pieces
from agents.detection.tripwires.honeytoken_kernels import (
    CLEAN,
    ENDS,
    FILTER_BITS,
    WINDOW_MAX,
    Ends,
    Hits,
    Searched,
    Sieve,
    Words,
    search,
)
from agents.scoring.lexical import Lexical

VERSION_OF_FILE = 1
KEY_BYTES, DIGEST_BYTES = 16, 8
FILTER_BYTES = FILTER_BITS // 8
PIECE_BITS = 48.0
"""Bits of information that a piece carries at least, by the trigram code or its alphabet (scoring.information).
Of 10^9 windows of names a day, 10^3 pieces meet one by chance once in 700 years."""
PIECE_MIN, PIECE_MAX = 8, 24
"""Bytes of a piece: as few as carry PIECE_BITS."""
WORD_BITS = 3.0
"""Bits a character, at most, where a piece may be words or a number: it has fewer changes than CHANGES_MIN."""
LETTERS_MIN, STEPS_MIN = 5, 4
"""Different characters in a piece, and different steps from one to the next, at least: `aaaa` and `1234` have fewer."""
SECRET_MAX = 512
"""Bytes of a token, at most: it is cut into pieces at every place, in every encoding."""
TOKENS_MAX = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
COARSE_BITS = 32
"""Bits of the coarse sieve for each piece: one window in so many passes it by chance."""
HITS_AT_ONCE = 4096
Bits = Callable[[Sequence[bytes]], NDArray[np.float64]]
"""Prices texts of 1 to 63 lower-case bytes, in bits."""


@dataclass(frozen=True, slots=True)
class Honeytoken:
    """One token. size: bytes of the secret in a piece; lengths: characters of its pieces; hashes: of the pieces by
    encoding, FILTER_BYTES + DIGEST_BYTES each."""

    name: str
    added: str  # YYYY-MM-DD, UTC
    size: int
    lengths: tuple[int, ...]
    hashes: Mapping[str, bytes]

    @property
    def pieces(self) -> int:
        """How many pieces are kept."""
        return sum(map(len, self.hashes.values())) // (FILTER_BYTES + DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class HoneytokenList:
    """The contents of the file. key: of the hashes."""

    key: bytes
    tokens: tuple[Honeytoken, ...] = ()

    def with_token(self, name: str, secret: bytes, added: str, bits: Bits) -> HoneytokenList:
        """The list with one more token. Raises UsageError, which never shows the secret."""
        if not NAME.fullmatch(name):
            raise UsageError(
                f"cannot add {printable(name, 80)}: a name has 1 to 64 letters, digits, spaces, dots, - and _"
            )
        if any(token.name == name for token in self.tokens):
            raise UsageError(f"cannot add {name}: it is on the list; remove it first")
        if len(self.tokens) >= TOKENS_MAX:
            raise UsageError(f"cannot add {name}: the list holds {TOKENS_MAX} tokens")
        size, telling = _cut(name, secret, bits)
        hashes, lengths = {}, set[int]()
        for code, pieces in encoded_pieces(secret, size, telling).items():
            hashes[code] = b"".join(sorted(self._hashed(piece) for piece in pieces))
            lengths.update(map(len, pieces))
        return HoneytokenList(self.key, (*self.tokens, Honeytoken(name, added, size, tuple(sorted(lengths)), hashes)))

    def without(self, name: str) -> HoneytokenList:
        """The list without a token. Raises UsageError."""
        if all(token.name != name for token in self.tokens):
            raise UsageError(f"cannot remove {printable(name, 80)}: it is not on the list")
        return HoneytokenList(self.key, tuple(token for token in self.tokens if token.name != name))

    @property
    def siphash_key(self) -> Key:
        """The key as SipHash takes it."""
        return int.from_bytes(self.key[:8], "little"), int.from_bytes(self.key[8:], "little")

    def digest(self, piece: bytes) -> bytes:
        """The long hash of a piece."""
        return hashlib.blake2b(piece, digest_size=DIGEST_BYTES, key=self.key).digest()

    def _hashed(self, piece: bytes) -> bytes:
        short = keyed_hash(piece, self.siphash_key) >> (64 - FILTER_BITS)
        return short.to_bytes(FILTER_BYTES) + self.digest(piece)

    def to_bytes(self) -> bytes:
        """The file's contents."""
        rows = [
            {
                "name": token.name,
                "added": token.added,
                "size": token.size,
                "lengths": token.lengths,
                "hashes": {code: base64.b64encode(data).decode() for code, data in token.hashes.items()},
            }
            for token in self.tokens
        ]
        return json.dumps({"version": VERSION_OF_FILE, "key": self.key.hex(), "tokens": rows}).encode()


def _cut(name: str, secret: bytes, bits: Bits) -> tuple[int, NDArray[np.bool_]]:
    """The size of a secret's pieces, and which of its places begin a piece that tells it from ordinary names.

    The least size at which half of the places do; at the largest one, one place is enough. Raises UsageError.
    """
    if not PIECE_MIN <= len(secret) <= SECRET_MAX:
        raise UsageError(f"cannot add {name}: it has {len(secret)} bytes; {PIECE_MIN} to {SECRET_MAX} are needed")
    last = min(PIECE_MAX, len(secret))
    for size in range(PIECE_MIN, last + 1):
        pieces = [secret[at : at + size] for at in range(len(secret) - size + 1)]
        words = np.array([changes_in(piece) < CHANGES_MIN for piece in pieces])
        found = np.minimum(bits([piece.lower() for piece in pieces]), np.where(words, WORD_BITS * size, np.inf))
        telling = (found >= PIECE_BITS) & np.array([_varies(piece) for piece in pieces])
        if telling.mean() >= 0.5 or (size == last and telling.any()):
            return size, telling
    raise UsageError(
        f"cannot add {name}: it has too little variety to be told from ordinary names; a piece of {last} characters"
        f" needs {PIECE_BITS:.0f} bits: 10 random letters and digits, 12 random hex digits, or 16 characters of words"
    )


def _varies(piece: bytes) -> bool:
    return len(set(piece)) >= LETTERS_MIN and len({two - one for one, two in pairwise(piece)}) >= STEPS_MIN


def new_list() -> HoneytokenList:
    """A list without tokens, with a key of its own."""
    return HoneytokenList(secrets.token_bytes(KEY_BYTES))


def save_honeytokens(path: Path, found: HoneytokenList) -> None:
    """Write the list in one step, for its owner alone. Raises OSError."""
    write_atomic(path, found.to_bytes(), PRIVATE_MODE)


def load_honeytokens(path: Path) -> HoneytokenList:
    """The list in a file; a new one if the file does not exist. Raises SettingsError."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return new_list()
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is damaged'}") from None
    try:
        return _list_of(found)
    except (ValueError, binascii.Error):
        raise SettingsError(f"cannot read {path}: it is damaged") from None


def _list_of(found: Any) -> HoneytokenList:
    """Raises ValueError for any other contents."""
    version, key, rows = (found.get(name) if isinstance(found, dict) else None for name in ("version", "key", "tokens"))
    if version != VERSION_OF_FILE or not isinstance(key, str) or not isinstance(rows, list):
        raise ValueError("no list of honeytokens")
    if len(bytes.fromhex(key)) != KEY_BYTES:
        raise ValueError("no key")
    return HoneytokenList(bytes.fromhex(key), tuple(map(_token_of, rows)))


def _token_of(row: Any) -> Honeytoken:
    kinds = (("name", str), ("added", str), ("size", int), ("lengths", list), ("hashes", dict))
    if not isinstance(row, dict) or not all(isinstance(row.get(name), kind) for name, kind in kinds):
        raise ValueError("no token")
    if not all(isinstance(length, int) and 0 < length <= WINDOW_MAX for length in row["lengths"]):
        raise ValueError("no lengths")
    hashes = {str(code): base64.b64decode(str(text), validate=True) for code, text in row["hashes"].items()}
    if not NAME.fullmatch(row["name"]) or any(len(data) % (FILTER_BYTES + DIGEST_BYTES) for data in hashes.values()):
        raise ValueError("no hashes")
    lengths = tuple(sorted(set(row["lengths"])))
    return Honeytoken(row["name"], printable(row["added"], 20), row["size"], lengths, hashes)


class HoneytokenSearch:
    """Finds the tokens of a list in names. It keeps the ends of flows' last names: give it batches in time order."""

    def __init__(self, found: HoneytokenList) -> None:
        self._list = found
        self._named: dict[bytes, str] = {}
        lengths = sorted({length for token in found.tokens for length in token.lengths})
        shorts = set[int]()
        for token in found.tokens:
            for code, data in token.hashes.items():
                for short, digest in _rows(data):
                    shorts.add(short)
                    self._named.setdefault(digest, f"the honeytoken {token.name} in {code}")
        self._sieve = _sieve(lengths, found.siphash_key, np.array(sorted(shorts), np.int64))
        ends = Ends(np.zeros(ENDS, np.uint64), np.zeros(ENDS, np.uint64), np.zeros(ENDS, np.int64), _windows(ENDS))
        self._before = Searched(np.zeros(CLEAN, np.uint64), ends)
        self._hits = Hits(np.zeros(HITS_AT_ONCE, np.int64), np.zeros(HITS_AT_ONCE, np.int64), _windows(HITS_AT_ONCE))

    def find(self, found: Lexical, clients: Coded) -> dict[int, str]:
        """The token in each of n names that contain one, in words, by its row. clients: who asked, one a name."""
        out: dict[int, str] = {}
        own = np.array([_client_hash(client, self._list.siphash_key) for client in clients.values], np.uint64)
        names = Words(
            found.names.array,
            found.names.starts,
            found.part_starts,
            found.part_bits,
            found.part_encoded,
            found.name_key,
            own[clients.codes] ^ found.domain_key,
        )
        row = 0
        while row < len(found):
            count, row = search(names, row, self._before, self._sieve, self._hits)
            for hit in range(count):
                piece = self._hits.texts[hit, : int(self._hits.sizes[hit])].tobytes()
                if (what := self._named.get(self._list.digest(piece))) is not None:
                    out.setdefault(int(self._hits.rows[hit]), what)
            for at in set(self._hits.rows[:count].tolist()) - out.keys():
                name = found.name_key[at]
                self._before.clean[int(name) % CLEAN] = name
        return out


def _sieve(lengths: Sequence[int], key: Key, shorts: NDArray[np.int64]) -> Sieve:
    """The sieve of pieces whose hashes begin with these bits."""
    shift = max(FILTER_BITS - max(len(shorts) * COARSE_BITS, 1).bit_length(), 0)
    return Sieve(
        np.array(lengths, np.int64),
        np.array(key, np.uint64),
        np.array([shift]),
        _bits_of(shorts >> shift, FILTER_BITS - shift),
        _bits_of(shorts, FILTER_BITS),
    )


def _bits_of(places: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """2^bits bits, of which those at `places` are set."""
    found = np.zeros(1 << max(bits, 3), np.bool_)
    found[places] = True
    return np.packbits(found, bitorder="little")


def _windows(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, WINDOW_MAX), np.uint8)


def _rows(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The short and the long hash of each piece."""
    size = FILTER_BYTES + DIGEST_BYTES
    for at in range(0, len(data), size):
        yield int.from_bytes(data[at : at + FILTER_BYTES]), data[at + FILTER_BYTES : at + size]


@lru_cache(maxsize=65_536)
def _client_hash(client: str, key: Key) -> int:
    return keyed_hash(client.encode(), key)
