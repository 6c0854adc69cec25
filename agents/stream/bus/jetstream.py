"""The client of NATS JetStream (extra `nats`): a stream for each slot, a bucket of keys, a bucket of objects."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from agents.core.errors import AgentsError, SettingsError
from agents.core.protocols import library
from agents.stream.bus.options import MESSAGE_MAX, BusOptions
from agents.stream.bus.protocol import StreamPosition

KEYS, OBJECTS, NETWORK_SUBJECT = "dns-tunnel", "dns-tunnel-state", "D"
"""Buckets, and the subject of what detectors say to where all clients are counted."""
ANSWERS_KEY = "answers"
"""Key of the bucket with that of answers' hashes, which all who hear queries share."""
SITE_API = "hub"
"""Where the account of a site has what it may ask of the hub; "$JS.API" would not pass a leaf node."""
_QUERIES = "Q."
_UNREADABLE = "the client cannot read a message"
LABEL, MESSAGE_ID = "Dns-Tunnel-MessageLabel", "Nats-Msg-Id"
REQUEST_S = 5.0
"""How long one request may take."""
CONNECT_S = 3.0
"""How long a server may take to be connected to."""
UNHEARD_S = 10.0
"""A connection on which nothing that is sent is acknowledged for so long is ended, and made anew."""
START_S = 15.0
"""A server that has not answered after so many seconds cannot be used; a new cluster takes a few to elect a leader."""
RETRY_S = 0.5
"""After a request that did not succeed."""
WINDOW_S = 120.0
"""Messages of one id within so many seconds are one (the server's duplicate window)."""
TOKEN_BITS = 32
"""Revisions of a bucket that was lost begin anew: its age in seconds stands above them."""
_FULL = (10077,)
"""How servers say that a message was not stored: maximum bytes, messages, or messages of its subject exceeded."""
T = TypeVar("T")


class BusError(AgentsError):
    """The bus is away, or refused a request; to be tried again."""


class Versioned(NamedTuple):
    """A value of the bucket and its revision; revision 0: there is none."""

    data: bytes
    revision: int


class StreamState(NamedTuple):
    """epoch: which stream of that name it is; first and last: sequences that it has."""

    epoch: str
    first: int
    last: int


def subject_of(slot: int) -> str:
    """The subject of a slot's queries."""
    return f"{_QUERIES}{slot}"


def site_of(subject: str) -> str:
    """The site in the subject of a message; "" where it has none. Servers let a site write to its own alone."""
    return subject.rpartition(".")[2] if subject.startswith(_QUERIES) else ""


def _heard(subject: str) -> str:
    """The subjects of a stream: queries have one for each site."""
    return f"{subject}.*" if subject.startswith(_QUERIES) else subject


def stream_name(subject: str) -> str:
    """The stream of a subject."""
    return subject.replace(".", "-")


class Bus:
    """One connection. Every method raises BusError where it does not succeed."""

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self._nats = library("nats", "nats", "setting STREAM")
        self._errors, self._api = library("nats.errors", "nats", "STREAM"), library("nats.js.api", "nats", "STREAM")
        self._js_errors = library("nats.js.errors", "nats", "STREAM")
        self._client: Any = None
        self._js: Any = None
        self._keys: Any = None
        self._objects: Any = None
        self.token_base = 0
        self._problem = ""

    async def open(self, name: str, patience_s: float = START_S) -> None:
        """Connect, and make what is missing: streams and buckets. Raises BusError, after `patience_s` at the least."""
        end = asyncio.get_running_loop().time() + patience_s
        while True:
            try:
                await self._open(name)
            except (BusError, OSError) as error:
                await self.close()
                if asyncio.get_running_loop().time() > end:
                    raise BusError(f"cannot use STREAM at {self.options.shown}: {error}") from None
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _open(self, name: str) -> None:
        if self._client is None:
            self._client = await self._asked(
                self._nats.connect(
                    name=f"dns-tunnel {name}",
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RETRY_S,
                    connect_timeout=CONNECT_S,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=8 << 20,
                    error_cb=self._note_error,
                    reconnected_cb=self._bound_silence,
                    **self.options.connecting,
                ),
                CONNECT_S,
            )
            await self._bound_silence()
            prefix = {"prefix": SITE_API} if self.options.site else {}
            self._js = self._client.jetstream(timeout=REQUEST_S, **prefix)
        await (self._find() if self.options.site else self.ensure())

    async def _bound_silence(self) -> None:
        """Have the system end a connection whose other end acknowledges nothing (TCP_USER_TIMEOUT, tcp(7)).

        The client closes a silent one only when all is sent that it had for it: after a minute's break that may take
        one minute more, as TCP tries less and less often.
        """
        transport = getattr(self._client, "_transport", None)  # the client has no public way to its socket
        writer = getattr(transport, "_bare_io_writer", None)
        if writer is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux alone has it
            with contextlib.suppress(OSError):  # it has ended already, and the client is about to see that
                line = writer.get_extra_info("socket")
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNHEARD_S * 1000))

    async def _find(self) -> None:
        """See that what hosts of the main site make is there."""
        try:
            await self.state(subject_of(self.options.slots - 1))
            self._same_slots((await self.look("slots")).data)
        except MissingError:
            raise BusError("it has no streams yet: a host of the main site makes them") from None

    def _same_slots(self, there: bytes) -> None:
        slots = self.options.slots
        if there and there != str(slots).encode():
            raise SettingsError(f"cannot use setting STREAM_SLOTS={slots}: this bus has {there.decode()}")

    async def ensure(self) -> None:
        """Make streams and buckets that are not there."""
        made = [self.ensure_stream(subject_of(slot)) for slot in range(self.options.slots)]
        await asyncio.gather(*made, self.ensure_stream(NETWORK_SUBJECT))
        replicas = self.options.replicas
        api, js = self._api, self._js
        keys = partial(js.create_key_value, api.KeyValueConfig(bucket=KEYS, replicas=replicas, direct=True))
        objects = partial(js.create_object_store, OBJECTS, api.ObjectStoreConfig(bucket=OBJECTS, replicas=replicas))
        self._keys = await self._asked(self._made(partial(js.key_value, KEYS), keys))
        self._objects = await self._asked(self._made(partial(js.object_store, OBJECTS), objects))
        self.token_base = await self._token_base()
        with contextlib.suppress(ConflictError):
            await self.put_if("slots", str(self.options.slots).encode(), 0)
        self._same_slots((await self.get("slots")).data)

    async def _made(self, find: Callable[[], Awaitable[Any]], make: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await find()
        except self._js_errors.NotFoundError:
            return await make()

    async def ensure_stream(self, subject: str) -> None:
        """Make a stream where it is not there. Raises MissingError where another site is to do that."""
        options = self.options
        try:
            await self._asked(self._js.stream_info(stream_name(subject)))
        except MissingError:
            if options.site:
                raise
            config = self._api.StreamConfig(
                name=stream_name(subject),
                subjects=[_heard(subject)],
                num_replicas=options.replicas,
                max_age=options.keep_hours * 3600,
                max_bytes=options.keep_bytes,
                duplicate_window=min(WINDOW_S, options.keep_hours * 3600),
                **self._bounds(subject),
            )
            await self._asked(self._js.add_stream(config))

    def _bounds(self, subject: str) -> dict[str, Any]:
        """What a stream does when it is full: queries are refused, and their publishers keep them; no site can push out
        what another one has sent. What detectors say to each other pushes out the oldest."""
        if not subject.startswith(_QUERIES):
            return {"discard": "old"}
        most = self.options.keep_messages
        new = {"discard": "new", "discard_new_per_subject": True}
        return {**new, "max_msgs_per_subject": most, "max_msg_size": MESSAGE_MAX}

    async def forget(self, subject: str, position: StreamPosition) -> None:
        """Drop what saved state has counted: it makes room for its sites. Of a stream that began anew, nothing."""
        if (await self.state(subject)).epoch == position.epoch:
            await self._asked(self._js.purge_stream(stream_name(subject), seq=position.sequence + 1))

    async def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            with contextlib.suppress(self._errors.Error, OSError, TimeoutError):
                await self._client.close()
            self._client = None

    async def _note_error(self, error: BaseException) -> None:
        self._problem = _words(error) or type(error).__name__

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and bool(self._client.is_connected)

    async def _asked(self, request: Awaitable[T], timeout_s: float = 2 * REQUEST_S) -> T:
        """The answer to a request. Raises BusError, MissingError, ConflictError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await request
        except self._js_errors.KeyWrongLastSequenceError as error:
            raise ConflictError(str(error)) from None
        except (self._js_errors.NotFoundError, self._js_errors.NoStreamResponseError) as error:
            raise MissingError(str(error)) from None
        except self._js_errors.APIError as error:
            if error.err_code in _FULL:
                raise FullError(_words(error)) from None
            if not isinstance(error, self._js_errors.ServiceUnavailableError):
                raise BusError(_words(error)) from None
            raise BusError("no JetStream answers there; a site's hub may be away, or give it no account") from None
        except (self._errors.Error, OSError, TimeoutError, asyncio.InvalidStateError) as error:
            raise BusError(_words(error) or self._problem or "no answer in time") from None

    async def state(self, subject: str) -> StreamState:
        """Which stream a subject has, and what is in it."""
        found = await self._asked(self._js.stream_info(stream_name(subject)))
        return StreamState(str(found.created.timestamp()), found.state.first_seq, found.state.last_seq)

    async def publish(self, subject: str, data: bytes, label: str, message_id: str, site: str = "") -> int:
        """Put a message into its stream; the sequence that it has there. site: of queries."""
        to = f"{subject}.{site}" if site else subject
        headers = {MESSAGE_ID: message_id, LABEL: label}
        try:
            ack = await self._asked(
                self._js.publish(to, data, timeout=REQUEST_S, stream=stream_name(subject), headers=headers)
            )
        except MissingError:  # nobody answers for the subject: its stream is lost
            await self.ensure_stream(subject)
            raise
        return int(ack.seq)

    async def consumer(self, subject: str, after: int) -> Any:
        """A consumer without acknowledgements, from the message behind `after` on."""
        config = self._api.ConsumerConfig(
            ack_policy=self._api.AckPolicy.NONE,
            deliver_policy=self._api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            inactive_threshold=60.0,
            mem_storage=True,
            num_replicas=1,
        )
        return await self._asked(self._js.pull_subscribe(_heard(subject), stream=stream_name(subject), config=config))

    async def end_consumer(self, consumer: Any) -> None:
        """Read by a consumer no more; where the connection is gone, the server forgets it by itself."""
        with contextlib.suppress(BusError):
            await self._asked(consumer.unsubscribe())

    async def fetched(self, consumer: Any, most: int, wait_s: float) -> list[Any]:
        """Messages of a consumer, none after `wait_s` without one."""
        try:
            return list(await consumer.fetch(most, timeout=wait_s))
        except (self._errors.TimeoutError, TimeoutError):
            return []
        except (self._errors.Error, OSError) as error:
            raise BusError(_words(error) or type(error).__name__) from None
        except KeyError:  # of the client, by a header that it takes for its server's
            raise BusError(_UNREADABLE) from None
        except ValueError:
            raise BusError(_UNREADABLE) from None

    async def message(self, subject: str, sequence: int) -> Any:
        """A message of a stream by itself: subject, headers, data."""
        return await self._asked(self._js.get_msg(stream_name(subject), seq=sequence))

    async def get(self, key: str) -> Versioned:
        """The value of a key, as the leader has it; revision 0 where there is none."""
        return await self._value(key, direct=False)

    async def look(self, key: str) -> Versioned:
        """The value of a key, as some server has it: perhaps an older one. A site's account may be given this key
        alone; of `get`, whose subject does not name the key, it would be all or none."""
        return await self._value(key, direct=True)

    async def _value(self, key: str, direct: bool) -> Versioned:
        asked = self._js.get_msg(f"KV_{KEYS}", subject=f"$KV.{KEYS}.{key}", direct=direct)
        try:
            found = await self._asked(asked)
        except MissingError:
            return Versioned(b"", 0)
        return Versioned(found.data or b"", int(found.seq))

    async def put_if(self, key: str, data: bytes, revision: int) -> int:
        """Replace a value that has this revision still; the new revision. Raises ConflictError where it has not."""
        if revision == 0:
            return int(await self._asked(self._keys.create(key, data)))
        return int(await self._asked(self._keys.update(key, data, last=revision)))

    async def put_object(self, name: str, data: bytes) -> None:
        """Keep an object."""
        await self._asked(self._objects.put(name, data))

    async def get_object(self, name: str) -> bytes:
        """The contents of an object. Raises MissingError."""
        return bytes((await self._asked(self._objects.get(name))).data)

    async def drop_object(self, name: str) -> None:
        """Delete an object, if it is there, and what the client leaves of its name."""
        with contextlib.suppress(BusError):
            await self._asked(self._objects.delete(name))
            subject = f"$O.{OBJECTS}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
            await self._asked(self._js.purge_stream(f"OBJ_{OBJECTS}", subject=subject))

    async def objects(self) -> dict[str, float]:
        """All objects: when each was made, Unix seconds."""
        try:
            found = await self._asked(self._objects.list(ignore_deletes=True))
        except MissingError:
            return {}
        return {str(one.name): datetime.fromisoformat(one.mtime.replace("Z", "+00:00")).timestamp() for one in found}

    async def keys_are_lost(self) -> bool:
        """Whether the bucket of keys is gone, or another one by now: tokens and saved state went with it."""
        try:
            return await self._token_base() != self.token_base
        except MissingError:
            return True

    async def _token_base(self) -> int:
        status = await self._asked(self._js.stream_info(f"KV_{KEYS}"))
        return int(status.created.timestamp()) << TOKEN_BITS


def _words(error: BaseException) -> str:
    """What an error says, in the server's words where it is the server's."""
    return str(getattr(error, "description", "") or error).replace("nats: ", "")


class FullError(BusError):
    """The stream has no room for this message: it, or this site's share of it, is full."""


class MissingError(BusError):
    """There is no such stream, key or object."""


class ConflictError(BusError):
    """A value was changed by another since it was read."""
