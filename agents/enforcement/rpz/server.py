"""The zone's primary server: AXFR (RFC 5936) and IXFR (RFC 1995), NOTIFY (RFC 1996), keys (TSIG, RFC 8945).

It answers a few resolvers that are named by address, and nobody else. dnspython reads what they ask and signs.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.tsig
import structlog

from agents.core.errors import AgentsError
from agents.core.text import ip_of, printable
from agents.dns.blocks import Block, BlockFile
from agents.enforcement.rpz.options import Network, RpzOptions
from agents.enforcement.rpz.zone import PolicyZone
from agents.sources.listener.sockets import bind_pair

ZONE_LOOK_S = 0.25
"""The file of blocks is looked at so often."""
IDLE_S = 10.0
CONNECTIONS_MAX, STRANGERS_MAX = 64, 32
"""Connections at once; with so many, one of nobody's resolver is closed."""
NOTIFY_TRIES, NOTIFY_WAIT_S = 4, 1.0
"""A resolver that does not answer is told again after 1, 2, 4 seconds (RFC 1996 section 3.6 leaves that to us)."""
FUDGE_S = 300
"""Seconds that clocks may differ (RFC 8945 section 10)."""
ANSWER_MAX = 65_535
_HEADER = 12
_QR_AA = 0x8400
_OPT = b"\0\0\x29\x04\xd0" + bytes(6)
"""EDNS(0) with 1232 bytes (RFC 6891 section 6.1.2)."""
_NOT_AUTHENTIC = (
    *(dns.tsig.BadSignature, dns.tsig.BadTime, dns.tsig.BadKey, dns.tsig.BadAlgorithm),
    dns.message.UnknownTSIGKey,
)
_TSIG: Any = dns.rdtypes.ANY.TSIG.TSIG
_sign: Any = dns.tsig.sign
_log = structlog.get_logger()


class PolicyServer:
    """Serves one zone. blocks: those in force, asked for when the file has changed; ready: called when it listens.

    Raises AgentsError from `start` where an address cannot be had.
    """

    def __init__(self, options: RpzOptions, zone: PolicyZone, file: BlockFile, enforced: bool = True) -> None:
        self._options, self._zone, self._file, self._enforced = options, zone, file, enforced
        self._keyring: dict[dns.name.Name, dns.tsig.Key] = {}
        if options.key is not None:
            name = dns.name.from_text(options.key.name)
            self._keyring[name] = dns.tsig.Key(name, options.key.secret, options.key.algorithm)
        self._origin = dns.name.from_text(options.zone)
        self._servers: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._ends, self._said = 0.0, ""
        self.addresses: list[tuple[str, int]] = []

    async def start(self) -> None:
        """Bind, take up the blocks, and serve."""
        self.look(time.time())
        loop = asyncio.get_running_loop()
        for host, port in self._options.listen:
            try:
                udp, tcp = bind_pair(host, port)
            except AgentsError as error:
                await self.stop()
                raise AgentsError(f"cannot serve the zone: {error}") from None
            self._servers.append(await asyncio.start_server(self._converse, sock=tcp))
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.answers), sock=udp)
            self._servers.append(transport)
            self.addresses.append(tcp.getsockname()[:2])
        _log.info("rpz_started", zone=self._options.zone, addresses=self.addresses, records=len(self._zone))
        self._start(self._watch())
        self._notify()

    async def stop(self) -> None:
        """Close all."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers = []

    def look(self, now: float) -> bool:
        """Take up the file where it changed, or a block has ended; whether the zone is another one now."""
        if not self._file.changed() and now < self._ends:
            if self._file.fault and self._file.fault != self._said:
                _log.warning("blocks_not_read", error=self._file.fault)
            self._said = self._file.fault
            return False
        self._ends = self._file.next_end(now)
        blocks: Sequence[Block] = self._file.list.in_force(now) if self._enforced else ()
        try:
            return self._zone.update(blocks)
        except OSError as error:  # the serial is in memory, and goes on from the clock after a restart
            _log.warning("rpz_serial_not_kept", error=str(error))
            return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(ZONE_LOOK_S)
            if self.look(time.time()):
                _log.info(
                    "rpz_changed",
                    serial=self._zone.serial,
                    records=len(self._zone),
                    left_out=self._zone.left_out,
                )
                self._notify()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answers(self, wire: bytes, client: str, udp: bool = False) -> list[bytes]:
        """The messages that answer one; none for what is no query."""
        if len(wire) < _HEADER or wire[2] & 0x80:
            return []
        if not _among(client, self._options.clients):
            return [_bare(wire, dns.rcode.REFUSED)]
        try:
            asked = dns.message.from_wire(wire, keyring=self._keyring)
        except dns.tsig.PeerError:
            return []
        except _NOT_AUTHENTIC:
            return [_bare(wire, dns.rcode.NOTAUTH)]
        except (dns.exception.DNSException, ValueError):
            return [_bare(wire, dns.rcode.FORMERR)]
        rcode = self._refusal(asked, client)
        if rcode != dns.rcode.NOERROR:
            return self._messages(asked, [(0, b"")], rcode)
        kind = asked.question[0].rdtype
        if kind == dns.rdatatype.SOA or (udp and kind == dns.rdatatype.IXFR):
            return self._messages(asked, [(1, self._zone.soa())])
        if kind == dns.rdatatype.NS:
            return self._messages(asked, [(1, self._zone.ns())])
        if kind == dns.rdatatype.IXFR:
            return self._messages(asked, self._zone.changes(_serial_of(asked)))
        if kind == dns.rdatatype.AXFR and not udp:
            return self._messages(asked, self._zone.transfer())
        return self._messages(asked, [(0, b"")], dns.rcode.REFUSED)

    def _refusal(self, asked: dns.message.Message, client: str) -> int:
        """The RCODE of what is not answered, else NOERROR."""
        if asked.opcode() != dns.opcode.QUERY:
            return dns.rcode.NOTIMP
        if len(asked.question) != 1:
            return dns.rcode.FORMERR
        signed = asked.had_tsig or self._options.key is None or _among(client, self._options.unsigned)
        (question,) = asked.question
        mine = question.name == self._origin and question.rdclass == dns.rdataclass.IN
        return dns.rcode.NOERROR if signed and mine else dns.rcode.REFUSED

    def _messages(
        self, asked: dns.message.Message, sections: Sequence[tuple[int, bytes]], rcode: int = 0
    ) -> list[bytes]:
        """Answers as messages, signed where the query was."""
        question = b"".join(
            _wire(one.name) + int(one.rdtype).to_bytes(2) + int(one.rdclass).to_bytes(2) for one in asked.question
        )
        flags = _QR_AA | asked.opcode() << 11 | rcode | (asked.flags & dns.flags.RD)
        opt = _OPT if asked.edns >= 0 and len(sections) == 1 else b""
        out, context = [], None
        for count, body in sections:
            numbers = (asked.id, flags, len(asked.question), count, 0, bool(opt))
            wire = b"".join(int(number).to_bytes(2) for number in numbers) + question + body + opt
            if asked.had_tsig:
                wire, context = self._signed(wire, asked, context, len(sections) > 1)
            out.append(wire)
        return out

    def _signed(self, wire: bytes, asked: dns.message.Message, context: Any, multi: bool) -> tuple[bytes, Any]:
        assert asked.keyname is not None
        key = self._keyring[asked.keyname]
        empty = _TSIG(dns.rdataclass.ANY, dns.rdatatype.TSIG, key.algorithm, 0, FUDGE_S, b"", asked.id, 0, b"")
        data, context = _sign(wire, key, empty, int(time.time()), asked.mac, context, multi)
        body = data.to_wire()
        tsig = _wire(asked.keyname) + int(dns.rdatatype.TSIG).to_bytes(2) + int(dns.rdataclass.ANY).to_bytes(2)
        tsig += bytes(4) + len(body).to_bytes(2) + body
        additional = int.from_bytes(wire[10:12]) + 1
        return wire[:10] + additional.to_bytes(2) + wire[12:] + tsig, context

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: queries one after another until it is silent."""
        client = writer.get_extra_info("peername")[0]
        self._connections += 1
        try:
            most = CONNECTIONS_MAX if _among(client, self._options.clients) else STRANGERS_MAX
            if self._connections > most:
                return
            while True:
                async with asyncio.timeout(IDLE_S):
                    wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                for one in self.answers(wire, client):
                    writer.write(len(one).to_bytes(2) + one)
                    async with asyncio.timeout(IDLE_S):
                        await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            return
        finally:
            self._connections -= 1
            writer.close()

    def _notify(self) -> None:
        for target in self._options.notify:
            self._start(self._tell(target))

    async def _tell(self, target: tuple[str, int]) -> None:
        """Tell one resolver that the zone has changed, until it answers. Not signed: unbound takes no signed one."""
        serial, ident = self._zone.serial, secrets.randbits(16)
        question = _wire(self._origin) + int(dns.rdatatype.SOA).to_bytes(2) + b"\0\1"
        flags = dns.opcode.NOTIFY << 11 | int(dns.flags.AA)
        numbers = (ident, flags, 1, 1, 0, 0)
        wire = b"".join(number.to_bytes(2) for number in numbers) + question + self._zone.soa()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            with contextlib.suppress(OSError):
                sending.bind(self._source(target))
            for number in range(NOTIFY_TRIES):
                if serial != self._zone.serial:
                    return  # a newer change is being told
                with contextlib.suppress(OSError, TimeoutError):
                    await loop.sock_sendto(sending, wire, target)
                    async with asyncio.timeout(NOTIFY_WAIT_S * 2**number):
                        while (answer := await loop.sock_recv(sending, ANSWER_MAX))[:2] != wire[:2]:
                            continue
                    _log.debug("rpz_notified", resolver=target[0], rcode=answer[3] & 0xF)
                    return
                await asyncio.sleep(NOTIFY_WAIT_S)
        _log.info("rpz_not_notified", resolver=printable(target[0]), hint="it asks again by itself")

    def _source(self, target: tuple[str, int]) -> tuple[str, int]:
        """The address that the resolver knows this server by: it listens there for its family, or the machine's."""
        family = ":" in target[0]
        found = (host for host, _ in self._options.listen if (":" in host) == family)
        return next(found, "::" if family else "0.0.0.0"), 0  # noqa: S104 - it sends only


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answers: Callable[[bytes, str, bool], list[bytes]]) -> None:
        self._answers = answers
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        for one in self._answers(data, addr[0], True):
            self._transport.sendto(one, addr)


@lru_cache(maxsize=1024)
def _among(client: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_of(client)
    except ValueError:
        return False
    return any(address in one for one in networks)


def _wire(name: dns.name.Name) -> bytes:
    return name.to_wire() or b""


def _bare(wire: bytes, rcode: int) -> bytes:
    """An error without a question."""
    return wire[:2] + (0x8000 | (wire[2] & 0x78) << 8 | rcode).to_bytes(2) + bytes(8)


def _serial_of(asked: dns.message.Message) -> int:
    """The serial that an IXFR has; -1 where it has none."""
    for found in asked.authority:
        if found.rdtype == dns.rdatatype.SOA and len(found):
            return int(found[0].serial)
    return -1
