"""What the listener counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class _Count:
    """One number of the counters' memory, as an attribute."""

    def __set_name__(self, owner: type[Counters], name: str) -> None:
        self._at = len(owner.NAMES)
        owner.NAMES = (*owner.NAMES, name)

    def __get__(self, counters: Counters, owner: type[Counters]) -> int:
        return counters.cells[self._at]

    def __set__(self, counters: Counters, value: int) -> None:
        counters.cells[self._at] = value


class Counters:
    """Since start. received = malformed + refused + notimp + shed + answered + servfail + in flight.

    cells: memory of `len(NAMES)` signed 64-bit numbers in the order of NAMES, which may be shared with other
    processes and outlive this one; of its own unless given. One thread at a time may write it.
    """

    NAMES: tuple[str, ...] = ()

    received = _Count()  # messages from clients, UDP and TCP
    malformed = _Count()  # no single whole question (FORMERR), or no query at all (dropped)
    refused = _Count()  # from outside the access list
    notimp = _Count()  # an opcode other than QUERY, or a zone transfer
    shed = _Count()  # over inflight_max: SERVFAIL at once, not forwarded, not offered for scoring
    answered = _Count()  # with an upstream's answer
    servfail = _Count()  # no upstream answered
    timeouts = _Count()  # of one upstream; the query may have been answered by the next
    tcp_fallbacks = _Count()  # truncated answers that were asked again over TCP
    mismatched_answers = _Count()  # from an upstream's address, but no answer to anything asked on that socket
    tcp_clients = _Count()  # connections open now
    tcp_shed = _Count()  # connections closed at once: too many
    tcp_refused = _Count()  # connections closed at once: outside the access list

    def __init__(self, cells: memoryview | None = None) -> None:
        self.cells = memoryview(bytearray(self.size())).cast("q") if cells is None else cells

    @classmethod
    def size(cls) -> int:
        """Bytes of memory."""
        return 8 * len(cls.NAMES)

    def values(self) -> dict[str, int]:
        """All of them by name, as they are now."""
        return dict(zip(self.NAMES, self.cells.tolist(), strict=True))


def summed(each: Iterable[Counters]) -> Counters:
    """New counters with the sums."""
    cells = np.array([one.cells for one in each], np.int64).sum(axis=0)
    return Counters(memoryview(cells))
