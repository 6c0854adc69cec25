"""The walk over captured frames: kernels read them, and streams and fragments are put together between two steps."""

from __future__ import annotations

import secrets
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from agents.core.jit import COMPILED
from agents.dns.message_kernels import question_end
from agents.sources.capture import capture_kernels as kernels
from agents.sources.capture.capture_kernels import IP_FRAGMENT, NOW, TCP_SEGMENT
from agents.sources.capture.fragments import Fragment, Fragments, first_alone
from agents.sources.capture.frame_kernels import (
    DATAGRAM,
    DPORT,
    FLAGS,
    IP_ID,
    PAYLOAD,
    PROTOCOL,
    RAW,
    SEGMENT,
    SEQ,
    SIZE,
    SPORT,
    STOP,
    TTL,
    find_packet,
    packet_room,
)
from agents.sources.capture.streams import Segment, Streams

Buffer = Any
"""Bytes as kernels take them: u8 of NumPy, or a memoryview where the interpreter runs them."""


def buffer_of(content: bytes) -> Buffer:
    """Bytes as kernels take them; the interpreter reads a memoryview ten times faster than an array."""
    return np.frombuffer(content, np.uint8) if COMPILED else memoryview(content)


class FrameWalk:
    """DNS queries in captured frames, joined with their answers.

    ports: UDP and TCP ports that carry DNS; on others, queries are known by their content.
    """

    def __init__(self, ports: AbstractSet[int]) -> None:
        carries = np.zeros(65_536, np.bool_)
        carries[list(ports)] = True
        self.walk, self._packet = kernels.new_walk(carries), packet_room()
        self.numbers = self.walk.numbers
        self.streams, self.fragments = Streams(), Fragments()
        self.joiner = kernels.empty_joiner((secrets.randbits(64), secrets.randbits(64)))

    def scan(self, data: Buffer, out: Any, written: int) -> tuple[int, int]:
        """Go on through a buffer: reason to stop, but for segments and fragments, and rows in `out`."""
        while True:
            reason, written = kernels.scan(self.walk, self.joiner, self._packet, data, out, written)
            if reason == TCP_SEGMENT:
                self._take_segment(data)
            elif reason == IP_FRAGMENT:
                self._take_fragment(data)
            else:
                return int(reason), int(written)

    def _take_segment(self, data: Buffer) -> None:
        """Add the TCP segment at hand to its stream, and take the messages it completes."""
        packet, numbers = self._packet, self._packet.numbers
        segment = Segment(
            bytes(packet.source),
            int(numbers[SPORT]),
            bytes(packet.destination),
            int(numbers[DPORT]),
            int(numbers[SEQ]),
            int(numbers[FLAGS]),
            data[numbers[PAYLOAD] : numbers[STOP]].tobytes(),
            int(numbers[IP_ID]),
            int(numbers[TTL]),
            float(self.walk.times[NOW]),
        )
        for message in self.streams.messages(segment):
            self._take_message(message)

    def _take_message(self, message: bytes) -> None:
        """Take a message out of a stream, between the ends of the packet at hand."""
        numbers = self._packet.numbers
        numbers[PAYLOAD], numbers[STOP], numbers[SIZE] = 0, len(message), len(message)
        numbers[TTL] = -1  # copies of segments are gone; several messages in one segment are no copies
        kernels.take_message(self.walk, self.joiner, self._packet, buffer_of(message))

    def _take_fragment(self, data: Buffer) -> None:
        """Add the IP fragment at hand to its packet, and take what becomes readable.

        A first fragment with a whole question is taken at once: the others bring records that nothing counts, and many
        captures lack them, since only the first one has ports to filter by.
        """
        packet, numbers = self._packet, self._packet.numbers
        content = data[numbers[PAYLOAD] : numbers[STOP]].tobytes()
        if len(content) < numbers[SIZE]:
            self.fragments.incomplete += 1
            return
        fragment = Fragment(
            bytes(packet.source),
            bytes(packet.destination),
            int(numbers[IP_ID]),
            int(numbers[PROTOCOL]),
            int(numbers[TTL]),
            int(numbers[SEQ]),
            bool(numbers[FLAGS]),
            content,
            float(self.walk.times[NOW]),
        )
        whole = self.fragments.add(fragment)
        if whole is not None:
            self._take_packet(buffer_of(whole))
        elif fragment.offset == 0:
            first = buffer_of(first_alone(fragment))
            if find_packet(RAW, first, 0, len(first), packet) == DATAGRAM and question_end(
                first, numbers[PAYLOAD], numbers[STOP]
            ):
                self.fragments.take(fragment)
                kernels.take_packet(self.walk, self.joiner, packet, first, DATAGRAM)

    def _take_packet(self, data: Buffer) -> None:
        """Take an IP packet that was put together; one with a fragment in it is not put together again."""
        kind = find_packet(RAW, data, 0, len(data), self._packet)
        if kind in (DATAGRAM, SEGMENT) and kernels.take_packet(self.walk, self.joiner, self._packet, data, kind):
            self._take_segment(data)

    def finish(self) -> None:
        """Take what waited for more that did not come."""
        self.fragments.finish()
        packet, numbers = self._packet, self._packet.numbers
        for source, sport, destination, dport, message in self.streams.finish():
            for at in range(len(source)):
                packet.source[at], packet.destination[at] = source[at], destination[at]
            numbers[SPORT], numbers[DPORT] = sport, dport
            self._take_message(message)
