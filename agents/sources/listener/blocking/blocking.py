"""Blocks that are in force at one listener process: read from their file, looked up, answered.

The file is looked at twice a second, by the event loop that answers. It alone decides: a database that is away, or
another process that has died, changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from agents.dns import message as wire
from agents.dns.blocks import Block, BlockAction, BlockFile, BlockTable

GLANCE_S = 0.5
"""The file is looked at so often."""
TTL_S = 10
"""Seconds that a client may keep the address of a sinkhole: it is to notice soon when the block has ended."""
SLOW_S, SLOW_WAIT_MAX_S = 1.0, 4.0
"""A slowed client has an answer below the domain in so many seconds, and waits so long for its turn at most."""
TURNS_MAX = 4096
"""Clients and domains that are slowed at once; of more, none has a turn."""
ROWS_MAX = 256
"""Domains, blocked for all, that the compiled way looks at itself; with more, it hands every query on."""
EVERYBODY = ("0.0.0.0/0", "::/0")
_A, _AAAA, _ANY = (wire.type_number(name) for name in ("A", "AAAA", "ANY"))
_RCODES = {BlockAction.NXDOMAIN: wire.NXDOMAIN, BlockAction.REFUSED: wire.REFUSED}
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """path: the file of blocks. sinkhole: addresses that SINKHOLE answers with. processes: listeners that share a
    client's queries."""

    path: Path
    sinkhole: Sequence[str] = ()
    processes: int = 1


class Blocking:
    """The blocks in force; none without a config. changed: called when there are others."""

    def __init__(self, config: BlockConfig | None = None) -> None:
        self._config, self.table = config, BlockTable()
        self._file = BlockFile(config.path) if config else None
        self._ends, self._said = float("inf"), ""
        self._turns: dict[tuple[str, bytes], float] = {}
        self._records = [_record(one) for one in config.sinkhole] if config else []
        self._task: asyncio.Task[None] | None = None

    def look(self, now: float | None = None) -> bool:
        """Take up the file where it changed, or a block has ended; whether other blocks are in force."""
        now = time.time() if now is None else now
        if self._file is None or not (self._file.changed() or now >= self._ends):
            self._say()
            return False
        self._ends = self._file.next_end(now)
        before, self.table = self.table, BlockTable.of(self._file.list.in_force(now))
        self._say()
        return before.blocks != self.table.blocks

    def _say(self) -> None:
        fault = self._file.fault if self._file else ""
        if fault and fault != self._said:
            _log.warning("blocks_not_read", error=fault)
        self._said = fault

    def start(self, changed: Callable[[], None]) -> None:
        """Look from now on."""
        if self._file is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch(changed))

    def stop(self) -> None:
        """Look no more; what is in force stays so."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, changed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(GLANCE_S)
            if self.look():
                changed()
                _log.info("blocks_in_force", blocks=len(self.table.blocks))

    def find(self, client: bytes, name: bytes) -> Block | None:
        """The block that a query meets. client: 16 bytes, IPv4 mapped; name: in wire form."""
        return self.table.find(client, name)

    @property
    def names(self) -> list[bytes]:
        """Domains that the compiled way looks at itself."""
        found = self.table.for_all
        return found if len(found) <= ROWS_MAX else []

    @property
    def clients(self) -> list[str]:
        """Networks whose queries the compiled way hands on, each of them."""
        return list(EVERYBODY) if len(self.table.for_all) > ROWS_MAX else self.table.clients

    def reply(self, block: Block, query: bytes, end: int) -> bytes:
        """The answer to a blocked query. end: offset behind its question. Of SLOW it is that of one too many."""
        if block.action != BlockAction.SINKHOLE:
            return wire.error_reply(query, _RCODES.get(block.action, wire.SERVFAIL), end)
        asked = int.from_bytes(query[end - 4 : end - 2])
        found = [one for one in self._records if asked in (one[0], _ANY)]
        empty = wire.error_reply(query, wire.NOERROR, end)
        body = b"".join(
            b"\xc0\x0c" + kind.to_bytes(2) + b"\0\1" + TTL_S.to_bytes(4) + len(data).to_bytes(2) + data
            for kind, data in found
        )
        return empty[:6] + len(found).to_bytes(2) + empty[8:end] + body + empty[end:]

    def wait_s(self, block: Block, client: bytes, now: float) -> float | None:
        """Seconds until a slowed query goes on; None where too many of its client's wait. now: monotonic seconds."""
        assert self._config is not None
        key = block.block_id, client
        if key not in self._turns and len(self._turns) >= TURNS_MAX:
            self._turns = {one: at for one, at in self._turns.items() if at > now}
        turn = max(self._turns.get(key, now), now)
        if turn - now > SLOW_WAIT_MAX_S or len(self._turns) >= TURNS_MAX:
            return None
        self._turns[key] = turn + SLOW_S * self._config.processes
        return turn - now


def _record(address: str) -> tuple[int, bytes]:
    found = ipaddress.ip_address(address)
    return (_A if found.version == 4 else _AAAA), found.packed
