"""What a listener may be sent: queries, whole, damaged and cut, random bytes, names that point at themselves."""

from __future__ import annotations

import random

import dns.message


def hostile(count: int) -> list[bytes]:
    """Random bytes, valid queries with random damage, cut queries, and names that point at themselves."""
    dice = random.Random(5)
    valid = [
        dns.message.make_query("wWw.example.com", "A", id=1).to_wire(),
        dns.message.make_query("a.b.example", "TXT", use_edns=0, payload=1232, id=2).to_wire(),
    ]
    made = []
    for number in range(count):
        packet = bytearray(dice.choice(valid) if number % 4 else dice.randbytes(dice.randrange(80)))
        for _ in range(dice.randrange(3) if packet else 0):
            packet[dice.randrange(len(packet))] = dice.choice([0, 1, 12, 0x3F, 0x40, 0xC0, 0xFF, dice.randrange(256)])
        made.append(bytes(packet[: dice.randrange(len(packet) + 1)]) if number % 5 == 0 else bytes(packet))
    loop = bytes(4) + b"\0\1" + bytes(6)
    return [*made, loop + b"\xc0\x0c\0\1\0\1", loop + b"\1a\xc0\x0c\0\1\0\1"]
