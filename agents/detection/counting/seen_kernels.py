"""The keys that a flow has seen, 64 bits each: a hash table while few, then two generations of a Bloom filter (1970).

A filter may overlook a new key; it never reports a key as new that it holds. Keys lie in one pool for all flows, in
pieces of 2, 4, 8 … words. Pieces given back are kept in a list by size, and halved if a smaller piece is needed.
A client has a share of the pool, and the smallest piece of every flow is set aside. A client that fills the pool
therefore makes only its own flows forget: they count repeats as new, and the flows of other clients stay complete.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.detection.state import NONE, ROOM_SIZE, Room

SIZE_MIN = 1
"""log2 of the words in the smallest piece, which holds a name and its only label."""
SIZE_MAX = 10
EXACT_MAX = 500
"""Keys remembered one by one, at most."""
SKETCH = 11
"""log2 of a filter's words: 131,072 bits."""
SKETCH_BITS = 64 << SKETCH
SKETCH_HASHES = 4
FULL_BITS = SKETCH_BITS // 2
"""A filter is full when this many bits are set: at half it overlooks one new key in 2**SKETCH_HASHES = 16. It then
becomes the older generation, and the keys of the generation before it are forgotten."""
CROWDED = 16
"""A piece of at least so many words is replaced when three quarters full: probing a fuller one costs more than room."""
ROW_WORDS = 4 << SKETCH
"""Words that the keys of one query need at most: doubling up to a filter, and a second filter."""
assert Room.FREE_KEYS + SKETCH < ROOM_SIZE
FREE_KEYS, POOL, POOL_MAX, FORGOTTEN = int(Room.FREE_KEYS), int(Room.POOL), int(Room.POOL_MAX), int(Room.FORGOTTEN)
KEYS_MAX, SHARE = int(Room.KEYS_MAX), int(Room.SHARE)
ONE = np.uint64(1)


@kernel_in_place
def take_piece(pool: NDArray[np.uint64], room: NDArray[np.int64], size: int) -> int:
    """A zeroed piece of 2**size words; NONE if the pool is used up. Every flow can always get a smallest piece."""
    words = 1 << int(size)
    aside = room[KEYS_MAX] << SIZE_MIN if size > SIZE_MIN else 0
    at = _listed(pool, room, size)
    if at == NONE and room[POOL] + words <= min(len(pool), room[POOL_MAX] - aside):
        at = room[POOL]
        room[POOL] += words
    larger = size
    while at == NONE and larger < SKETCH:
        larger += 1
        at = _listed(pool, room, larger)
    if at == NONE:
        return NONE
    while larger > size:
        larger -= 1
        give_piece(pool, room, at + (1 << larger), larger)
    for i in range(at, at + words):
        pool[i] = 0
    return int(at)


@kernel_in_place
def _listed(pool: NDArray[np.uint64], room: NDArray[np.int64], size: int) -> int:
    """A piece of this size that was given back, or NONE."""
    at = room[FREE_KEYS + size]
    if at != NONE:
        room[FREE_KEYS + size] = np.int64(pool[at]) - 1
    return int(at)


@kernel_in_place
def give_piece(pool: NDArray[np.uint64], room: NDArray[np.int64], at: int, size: int) -> None:
    """Give a piece back."""
    pool[at] = np.uint64(room[FREE_KEYS + size] + 1)
    room[FREE_KEYS + size] = at


@kernel_in_place
def _claim(client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64], size: int) -> int:
    """A piece for a flow of this client (a row of state.CLIENT), or NONE if its share or the pool is used up."""
    words = 1 << int(size)
    if size > SIZE_MIN and client["words"] + words > room[SHARE]:
        return NONE
    at = take_piece(pool, room, size)
    if at != NONE:
        client["words"] += words
    return at


@kernel_in_place
def _release(client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64], at: int, size: int) -> None:
    client["words"] -= 1 << int(size)
    give_piece(pool, room, at, size)


@kernel_in_place
def _insert(pool: NDArray[np.uint64], at: int, size: int, key: np.uint64) -> bool:
    mask = (1 << int(size)) - 1
    place = np.int64(key >> np.uint64(20)) & mask
    while pool[at + place] != 0:
        if pool[at + place] == key:
            return False
        place = (place + 1) & mask
    pool[at + place] = key
    return True


@kernel_in_place
def _holds(pool: NDArray[np.uint64], at: int, size: int, key: np.uint64) -> bool:
    """Whether a piece holds the key; the piece may be full."""
    mask = (1 << int(size)) - 1
    place = np.int64(key >> np.uint64(20)) & mask
    for _ in range(mask + 1):
        found = pool[at + place]
        if found == key:
            return True
        if found == 0:
            return False
        place = (place + 1) & mask
    return False


@kernel_in_place
def _mark(pool: NDArray[np.uint64], at: int, key: np.uint64, write: bool) -> bool:
    """Whether a filter lacked the key; with `write` the key is added.

    Places come from double hashing (Kirsch, Mitzenmacher 2006).
    """
    step = (key >> np.uint64(32)) | ONE
    new = False
    for i in range(SKETCH_HASHES):
        bit = np.int64((key + np.uint64(i) * step) % np.uint64(SKETCH_BITS))
        word, mask = at + (bit >> 6), ONE << np.uint64(bit & 63)
        if (pool[word] & mask) == 0:
            new = True
            if write:
                pool[word] |= mask
    return new


@kernel_in_place
def _is_full(pool: NDArray[np.uint64], at: int) -> bool:
    count = 0
    for i in range(at, at + (1 << SKETCH)):
        word = pool[i]
        while word:
            word &= word - ONE
            count += 1
    return count >= FULL_BITS


@kernel_in_place
def _move(flow: Any, pool: NDArray[np.uint64], at: int, size: int) -> None:
    """Put a flow's keys into another piece."""
    for i in range(flow["seen_at"], flow["seen_at"] + (1 << int(flow["size"]))):
        if pool[i] != 0:
            if size == SKETCH:
                _mark(pool, at, pool[i], True)
            else:
                _insert(pool, at, size, pool[i])


@kernel_in_place
def _grow(flow: Any, client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64]) -> None:
    """Make room for another key: a larger piece, or at EXACT_MAX a filter. If none is free, forget all keys."""
    if flow["seen_at"] == NONE:
        flow["seen_at"], flow["size"] = _claim(client, pool, room, SIZE_MIN), SIZE_MIN
        return
    size = flow["size"] + 1 if flow["seen"] < EXACT_MAX and flow["size"] < SIZE_MAX else SKETCH
    at = _claim(client, pool, room, size)
    if at == NONE:
        room[FORGOTTEN] += 1
        for i in range(flow["seen_at"], flow["seen_at"] + (1 << int(flow["size"]))):
            pool[i] = 0
        flow["seen"] = 0
        return
    _move(flow, pool, at, size)
    _release(client, pool, room, flow["seen_at"], flow["size"])
    flow["seen_at"], flow["size"] = at, size


@kernel_in_place
def _remember_in_filter(
    flow: Any, client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64], key: np.uint64
) -> bool:
    new = _mark(pool, flow["seen_at"], key, True)
    if new and flow["older_at"] != NONE:
        new = _mark(pool, flow["older_at"], key, False)
    if new and (key & np.uint64(255)) == 0 and _is_full(pool, flow["seen_at"]):
        fresh = flow["older_at"]
        if fresh == NONE:
            fresh = _claim(client, pool, room, SKETCH)
        if fresh == NONE:
            room[FORGOTTEN] += 1
            fresh = flow["seen_at"]
        else:
            flow["older_at"] = flow["seen_at"]
        flow["seen_at"] = fresh
        for i in range(fresh, fresh + (1 << SKETCH)):
            pool[i] = 0
    return new


@kernel_in_place
def remember(flow: Any, client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64], key: np.uint64) -> bool:
    """Remember a key; True if it was new. flow: a row of state.FLOW; client: its row of state.CLIENT."""
    if key == 0:
        key = ONE
    if flow["size"] == SKETCH:
        return _remember_in_filter(flow, client, pool, room, key)
    if flow["seen_at"] != NONE and _holds(pool, flow["seen_at"], flow["size"], key):
        return False
    words = 1 << int(flow["size"]) if flow["seen_at"] != NONE else 0
    full = flow["seen"] >= words if words < CROWDED else flow["seen"] * 4 >= words * 3
    if full or flow["seen"] >= EXACT_MAX:
        _grow(flow, client, pool, room)
        if flow["size"] == SKETCH:
            return _remember_in_filter(flow, client, pool, room, key)
    _insert(pool, flow["seen_at"], flow["size"], key)
    flow["seen"] += 1
    return True


@kernel_in_place
def forget(flow: Any, client: Any, pool: NDArray[np.uint64], room: NDArray[np.int64]) -> None:
    """Give back all that a flow remembers."""
    if flow["seen_at"] != NONE:
        _release(client, pool, room, flow["seen_at"], flow["size"])
    if flow["older_at"] != NONE:
        _release(client, pool, room, flow["older_at"], SKETCH)
    flow["seen_at"], flow["older_at"], flow["seen"], flow["size"] = NONE, NONE, 0, 0
