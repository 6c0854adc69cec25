"""From a frame to its transport payload: link layers, tags, tunnels, IP headers, UDP and TCP.

Each header names what follows it, as an EtherType where there is one: `find_packet` goes from header to header until it
is at a UDP datagram, a TCP segment, or a fragment. The innermost addresses count. What cannot be read has a reason,
a place in an array of counts; `reason_text` puts it into words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import COMPILED, kernel_in_place
from agents.dns.message_kernels import copy_bytes, int64, u16


def room(numbers: NDArray[Any]) -> Any:
    """Memory for kernels: an array, or a list where the interpreter runs them, which it reads faster."""
    return numbers if COMPILED else numbers.tolist()


NULL, ETHERNET, PPP, PPP_HDLC, PPP_ETHER, RAW, C_HDLC, WIFI, LOOP, ENC, LINUX_SLL = (
    0, 1, 9, 50, 51, 101, 104, 105, 108, 109, 113,
)  # fmt: skip
PRISM, RADIOTAP, USER2, AVS, PPP_PPPD, PPP_WITH_DIR, IPV4, IPV6, NFLOG, PKTAP, LINUX_SLL2 = (
    119, 127, 149, 163, 166, 204, 228, 229, 239, 258, 276,
)  # fmt: skip
"""LINKTYPE numbers of the tcpdump.org registry. Apple's tools write PKTAP as USER2, too."""
DLT_RAW = (12, 14)
"""RAW as some systems number it and write it into files."""

IP_ANY = 0x10000
"""An IP packet of either version, beside the EtherTypes of the IEEE registry."""
ETHER_IP, ETHER_IP6, ETHER_BRIDGED, ETHER_PPP, ETHER_PPPOE, ETHER_NSH = 0x0800, 0x86DD, 0x6558, 0x880B, 0x8864, 0x894F
ETHER_MPLS, ETHER_MPLS_UPSTREAM, ETHER_ERSPAN, ETHER_ERSPAN3 = 0x8847, 0x8848, 0x88BE, 0x22EB
ETHER_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)
"""802.1Q, 802.1ad, and the QinQ types in use before it."""
ETHER_VN_TAG, ETHER_E_TAG, ETHER_I_TAG = 0x8926, 0x893F, 0x88E7
ETHER_LEAST = 0x600
"""Smaller numbers are lengths, and an LLC header follows (IEEE 802.3 clause 3.2.6)."""
_WIFI = 0x10001

TCP, UDP = 6, 17
IPIP, IPV6_IN_IP, GRE, ESP, ETHERIP, MPLS_IN_IP = 4, 41, 47, 50, 97, 137
"""IP protocol numbers."""
IPV6_FRAGMENT, IPV6_AUTH = 44, 51
IPV6_SKIPPED = (0, 43, 60, 135, 139, 140)
"""Hop-by-hop, routing, destination options, mobility, HIP, Shim6 (RFC 8200 section 4, 6275, 7401, 5533)."""
IPV6_EXTENSIONS_MAX = 8
VXLAN, VXLAN_LINUX, VXLAN_GPE, GENEVE, GTP_U, MPLS_IN_UDP, L2TP, TZSP, TEREDO = (
    4789, 8472, 4790, 6081, 2152, 6635, 1701, 37008, 3544,
)  # fmt: skip
"""UDP ports of tunnels (IANA registry; 8472 is Linux's VXLAN, 37008 TaZmen Sniffer's)."""
_DNS = 53
_GTP_EXTENSIONS_MAX, _LABELS_MAX, _TLVS_MAX = 8, 16, 16
NESTING_MAX = 24
"""Headers read in one frame."""

NOTHING, DATAGRAM, SEGMENT, FRAGMENT = range(4)
"""Contents of a frame: nothing that is read, a UDP datagram, a TCP segment, a fragment of an IP packet."""
SPORT, DPORT, PAYLOAD, STOP, SIZE, SEQ, FLAGS, IP_ID, TTL, PROTOCOL, WHY, _AT, _END = range(13)
"""Numbers of a packet: ports; payload's first byte and the byte behind its last captured one; bytes of the payload as
the header states them; TCP's sequence number and flags, of a fragment its offset and whether more follow; IP's
identification (-1 without one), time to live and protocol; the reason for NOTHING; and the header being read."""

LINK_TYPES, ETHER_TYPES, PROTOCOLS = 0, 1 << 16, 2 << 16
_NAMED = PROTOCOLS + 256
SHORT, ENCRYPTED, WIFI_CONTROL, PPP_CONTROL, LLC, DEEP, BAD_HEADER, OTHER_UDP, OTHER_TCP = range(_NAMED, _NAMED + 9)
REASONS = _NAMED + 9
"""Places of the reasons: one a link type, EtherType and IP protocol, and the others."""
_WORDS = {
    SHORT: "cut off within their headers",
    ENCRYPTED: "of 802.11 that are encrypted",
    WIFI_CONTROL: "of 802.11 without data",
    PPP_CONTROL: "of PPP that carry no IP",
    LLC: "of LLC that carry no IP",
    DEEP: "with too many headers",
    BAD_HEADER: "with a header that cannot be read",
    OTHER_UDP: "of UDP on other ports",
    OTHER_TCP: "of TCP on other ports",
}


def reason_text(reason: int) -> str:
    """What frames that were skipped for a reason are, as in "3 frames …"."""
    if reason < ETHER_TYPES:
        return f"of the unknown link type {reason}"
    if reason < PROTOCOLS:
        return f"of EtherType 0x{reason - ETHER_TYPES:04x}"
    return _WORDS.get(reason) or f"of IP protocol {reason - PROTOCOLS}"


def hides_queries(reason: int) -> bool:
    """Whether frames skipped for this reason may carry DNS that a reader with more knowledge would see."""
    return reason < ETHER_TYPES or reason in (ENCRYPTED, DEEP, SHORT, PROTOCOLS + ESP)


class Packet(NamedTuple):
    """The packet found in a frame."""

    source: NDArray[np.uint8]  # (16,): its address; an IPv4 one mapped (RFC 4291 section 2.5.5.2)
    destination: NDArray[np.uint8]  # (16,)
    numbers: NDArray[np.int64]  # SPORT …


def packet_room() -> Packet:
    """Room for one packet."""
    return Packet(room(np.zeros(16, np.uint8)), room(np.zeros(16, np.uint8)), room(np.zeros(13, np.int64)))


@kernel_in_place
def u32(data: Any, at: Any, big: Any) -> Any:
    """The 32-bit number at an offset, most significant byte first if `big`."""
    a, b, c, d = int64(data[at]), int64(data[at + 1]), int64(data[at + 2]), int64(data[at + 3])
    return a << 24 | b << 16 | c << 8 | d if big else d << 24 | c << 16 | b << 8 | a


@kernel_in_place
def _skip(packet: Any, why: Any) -> Any:
    """End the reading of a frame, with a reason."""
    packet.numbers[WHY] = why
    return -1


@kernel_in_place
def _next(packet: Any, at: Any, kind: Any) -> Any:
    """Go on with the header of this kind at `at`."""
    packet.numbers[_AT] = at
    return kind


@kernel_in_place
def _nflog(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """The payload among the type-length-value fields of LINKTYPE_NFLOG, whose numbers are in the host's order."""
    at += 4
    for _ in range(_TLVS_MAX):
        if at + 4 > end:
            break
        low = int64(data[at]) | int64(data[at + 1]) << 8
        little = 4 <= low <= end - at
        size = low if little else u16(data, at)
        if size < 4:
            break
        if (data[at + 2] if little else data[at + 3]) == 9:
            packet.numbers[_END] = min(end, at + size)
            return _next(packet, at + 4, IP_ANY)
        at += (size + 3) // 4 * 4
    return _skip(packet, SHORT)


@kernel_in_place
def _wifi_header(link: Any, data: Any, at: Any, end: Any, packet: Any) -> Any:
    """The 802.11 frame behind a header of the capturing radio."""
    if link == WIFI:
        return _next(packet, at, _WIFI)
    if at + 8 > end:
        return _skip(packet, SHORT)
    if link == RADIOTAP:
        return _next(packet, at + (int64(data[at + 2]) | int64(data[at + 3]) << 8), _WIFI)
    avs = u32(data, at, True) & 0xFFFFFFF0 == 0x80211000  # AVS writes its numbers in network order, Prism in the host's
    return _next(packet, at + u32(data, at + 4, avs), _WIFI)


@kernel_in_place
def _link_layer(link: Any, data: Any, at: Any, end: Any, packet: Any) -> Any:
    """The kind of header that follows a frame's link layer, or -1."""
    if link == ETHERNET:
        return _next(packet, at, ETHER_BRIDGED)
    if link in (RAW, IPV4, IPV6) or link in DLT_RAW:
        return _next(packet, at, IP_ANY)
    if link in (NULL, LOOP):
        return _next(packet, at + 4, IP_ANY)
    if link == ENC:
        return _next(packet, at + 12, IP_ANY)
    if link in (PPP, PPP_HDLC, PPP_PPPD):
        return _next(packet, at, ETHER_PPP)
    if link == PPP_WITH_DIR:
        return _next(packet, at + 1, ETHER_PPP)
    if link == PPP_ETHER:
        return _next(packet, at, ETHER_PPPOE)
    if link in (WIFI, RADIOTAP, PRISM, AVS):
        return _wifi_header(link, data, at, end, packet)
    if link == NFLOG:
        return _nflog(data, at, end, packet)
    place = 14 if link == LINUX_SLL else 2 if link == C_HDLC else 0
    if link not in (LINUX_SLL, LINUX_SLL2, C_HDLC):
        return _skip(packet, LINK_TYPES + link)
    if at + place + 2 > end:
        return _skip(packet, SHORT)
    return _next(packet, at + (20 if link == LINUX_SLL2 else place + 2), u16(data, at + place))


@kernel_in_place
def _llc(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """An LLC header, and a SNAP one behind it (IEEE 802.2; RFC 1042)."""
    if at + 8 > end:
        return _skip(packet, SHORT)
    if data[at] == 0xAA and data[at + 1] == 0xAA and data[at + 2] == 3:
        return _next(packet, at + 8, u16(data, at + 6))
    return _next(packet, at + 3, IP_ANY) if data[at] == 6 and data[at + 1] == 6 else _skip(packet, LLC)


@kernel_in_place
def _wifi(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """An 802.11 frame (IEEE 802.11 clause 9.2).

    Drivers may pad its header to 4 bytes, or leave the cipher's header of 8 bytes in a frame that they deciphered: the
    LLC header is looked for.
    """
    if at + 2 > end:
        return _skip(packet, SHORT)
    control, flags = int64(data[at]), int64(data[at + 1])
    if control & 0x0C != 0x08 or control & 0x40:
        return _skip(packet, WIFI_CONTROL)
    size = 24 + (6 if flags & 3 == 3 else 0)
    if control & 0x80:
        if at + size + 2 > end:
            return _skip(packet, SHORT)
        size += (14 if data[at + size] & 0x80 else 0) + 2 + (4 if flags & 0x80 else 0)
    for extra in (0, 2, 8, 10):
        place = at + size + extra
        if place + 8 <= end and data[place] == 0xAA and data[place + 1] == 0xAA and data[place + 2] == 3:
            return _llc(data, place, end, packet)
    return _skip(packet, ENCRYPTED if flags & 0x40 else LLC)


@kernel_in_place
def _is_ether_type(kind: Any) -> Any:
    return kind in (ETHER_IP, ETHER_IP6, ETHER_PPPOE, ETHER_MPLS, 0x0806) or kind in ETHER_VLAN


@kernel_in_place
def _mpls(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """A stack of labels (RFC 3032), then IP, or Ethernet with or without a control word (RFC 4448, RFC 4928)."""
    bottom = False
    for _ in range(_LABELS_MAX):
        if at + 4 > end:
            return _skip(packet, SHORT)
        bottom = data[at + 2] & 1 != 0
        at += 4
        if bottom:
            break
    if not bottom or at + 4 > end:
        return _skip(packet, DEEP if not bottom else SHORT)
    nibble = data[at] >> 4
    plain = at + 14 <= end and _is_ether_type(u16(data, at + 12))
    if nibble == 4 and data[at] & 0x0F >= 5 and 20 <= u16(data, at + 2) <= end - at:
        return _next(packet, at, IP_ANY)
    if nibble == 6 and not plain:
        return _next(packet, at, IP_ANY)
    worded = nibble == 0 and at + 18 <= end and _is_ether_type(u16(data, at + 16))
    return _next(packet, at + 4 if worded else at, ETHER_BRIDGED)


@kernel_in_place
def _ppp(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """A PPP frame (RFC 1661; RFC 1662 section 3.1): address, control and the protocol's first byte may be left out."""
    if at + 4 <= end and data[at + 1] == 3 and (data[at] == 0xFF or data[at] < 2):
        at += 2
    if at + 2 > end:
        return _skip(packet, SHORT)
    short = data[at] & 1
    protocol = int64(data[at]) if short else u16(data, at)
    at += 1 if short else 2
    if protocol in (0x21, 0x57):
        return _next(packet, at, IP_ANY)
    return _next(packet, at, ETHER_MPLS) if protocol in (0x281, 0x283) else _skip(packet, PPP_CONTROL)


@kernel_in_place
def _ether(kind: Any, data: Any, at: Any, end: Any, packet: Any) -> Any:
    """The kind of header behind one of an EtherType that is no IP; -1 if it is not read."""
    if kind in ETHER_VLAN:
        return _next(packet, at + 4, u16(data, at + 2)) if at + 4 <= end else _skip(packet, SHORT)
    if kind == ETHER_BRIDGED:
        return _next(packet, at + 14, u16(data, at + 12)) if at + 14 <= end else _skip(packet, SHORT)
    if kind < ETHER_LEAST:
        return _llc(data, at, end, packet)
    if kind == _WIFI:
        return _wifi(data, at, end, packet)
    if kind in (ETHER_MPLS, ETHER_MPLS_UPSTREAM):
        return _mpls(data, at, end, packet)
    if kind == ETHER_PPP:
        return _ppp(data, at, end, packet)
    if kind == ETHER_PPPOE:  # RFC 2516 section 4: code 0 is a session's data
        if at + 6 > end:
            return _skip(packet, SHORT)
        return _next(packet, at + 6, ETHER_PPP) if data[at + 1] == 0 else _skip(packet, PPP_CONTROL)
    if kind == ETHER_I_TAG:
        return _next(packet, at + 4, ETHER_BRIDGED)
    if kind in (ETHER_VN_TAG, ETHER_E_TAG):
        size = 4 if kind == ETHER_VN_TAG else 6
        return _next(packet, at + size + 2, u16(data, at + size)) if at + size + 2 <= end else _skip(packet, SHORT)
    if kind == ETHER_NSH:  # RFC 8300 section 2.2
        if at + 4 > end:
            return _skip(packet, SHORT)
        return _tunnelled(data[at + 3], at + (int64(data[at + 1]) & 0x3F) * 4, packet)
    return _skip(packet, ETHER_TYPES + kind)


@kernel_in_place
def _tunnelled(protocol: Any, at: Any, packet: Any) -> Any:
    """What a next-protocol field of VXLAN-GPE and NSH names (RFC 8300 section 6.2)."""
    if protocol in (1, 2):
        return _next(packet, at, IP_ANY)
    if protocol == 3:
        return _next(packet, at, ETHER_BRIDGED)
    if protocol == 4:
        return _next(packet, at, ETHER_NSH)
    return _next(packet, at, ETHER_MPLS) if protocol == 5 else _skip(packet, BAD_HEADER)


@kernel_in_place
def _gre(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """GRE (RFC 2784, 2890), with PPP (RFC 2637) and ERSPAN, whose type I has no sequence number and no header."""
    if at + 4 > end:
        return _skip(packet, SHORT)
    flags, kind = u16(data, at), u16(data, at + 2)
    start, at = at, at + 4
    if flags & 7 == 1:  # enhanced GRE
        at += 4 + (4 if flags & 0x1000 else 0) + (4 if flags & 0x80 else 0)
        return _next(packet, at, ETHER_PPP) if kind == ETHER_PPP and at > start else _skip(packet, BAD_HEADER)
    if flags & 0x4007:  # routing, or another version
        return _skip(packet, BAD_HEADER)
    at += (4 if flags & 0x8000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    if kind == ETHER_ERSPAN:
        return _next(packet, at + (8 if flags & 0x1000 else 0), ETHER_BRIDGED)
    if kind == ETHER_ERSPAN3:
        if at + 12 > end:
            return _skip(packet, SHORT)
        return _next(packet, at + (20 if data[at + 11] & 1 else 12), ETHER_BRIDGED)
    return _next(packet, at, kind)


@kernel_in_place
def _gtp(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """A G-PDU of GTP-U (3GPP TS 29.281 section 5), or 0 if it is none."""
    if at + 12 > end or data[at] & 0xF0 != 0x30 or data[at + 1] != 0xFF:
        return int64(0)
    extension = int64(data[at + 11]) if data[at] & 4 else int64(0)
    at += 12 if data[at] & 7 else 8
    for _ in range(_GTP_EXTENSIONS_MAX):
        if extension == 0 or at >= end or data[at] == 0:
            break
        at += int64(data[at]) * 4
        extension = int64(data[at - 1]) if at <= end else int64(0)
    return _next(packet, at, IP_ANY) if extension == 0 else int64(0)


@kernel_in_place
def _tzsp(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """TaZmen Sniffer's packet of Ethernet or 802.11, or 0 if it is none: tagged fields up to the end tag."""
    if at + 5 > end or data[at] != 1 or data[at + 1] > 1:
        return int64(0)
    protocol, at = u16(data, at + 2), at + 4
    for _ in range(_TLVS_MAX):
        if at >= end:
            break
        tag = data[at]
        if tag == 1:
            return (
                _next(packet, at + 1, _WIFI if protocol == 18 else ETHER_BRIDGED) if protocol in (1, 18) else int64(0)
            )
        at += 1 if tag == 0 else 2 + (int64(data[at + 1]) if at + 1 < end else int64(0))
    return int64(0)


@kernel_in_place
def _l2tp(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """A data message of L2TP version 2 (RFC 2661 section 3.1), or 0 if it is none."""
    if at + 8 > end or data[at] & 0x80 or data[at + 1] & 0x0F != 2:
        return int64(0)
    flags, at = u16(data, at), at + 6 + (2 if data[at] & 0x40 else 0)
    at += 4 if flags & 0x0800 else 0
    if flags & 0x0200:
        at += 2 + (u16(data, at) if at + 2 <= end else 0)
    return _next(packet, at, ETHER_PPP)


@kernel_in_place
def _udp_tunnel(port: Any, data: Any, at: Any, end: Any, packet: Any) -> Any:
    """The kind of header in a UDP tunnel's payload; 0 if it is none of this port's tunnel."""
    if at + 8 > end:
        return int64(0)
    first = int64(data[at])
    if port in (VXLAN, VXLAN_LINUX, VXLAN_GPE):  # RFC 7348 section 5; draft-ietf-nvo3-vxlan-gpe section 3
        if not first & 8 or data[at + 7]:
            return int64(0)
        if first & 4 or port == VXLAN_GPE:
            return _tunnelled(data[at + 3], at + 8, packet)
        return _next(packet, at + 8, ETHER_BRIDGED)
    if port == GENEVE:  # RFC 8926 section 3.4
        return _next(packet, at + 8 + (first & 0x3F) * 4, u16(data, at + 2)) if first < 0x40 else int64(0)
    if port == GTP_U:
        return _gtp(data, at, end, packet)
    if port == MPLS_IN_UDP:
        return _next(packet, at, ETHER_MPLS)
    if port == L2TP:
        return _l2tp(data, at, end, packet)
    if port == TZSP:
        return _tzsp(data, at, end, packet)
    if port == TEREDO:  # RFC 4380 section 5.1.1: perhaps behind an origin indication
        if first == 0 and data[at + 1] == 0 and at + 8 < end:
            at += 8
        return _next(packet, at, IP_ANY) if data[at] >> 4 == 6 else int64(0)
    return int64(0)


_FOUND = 0x20000
"""A DATAGRAM, SEGMENT or FRAGMENT, added to this, ends the walk over headers."""


@kernel_in_place
def _copy_address(data: Any, at: Any, size: Any, address: Any) -> None:
    """Copy an address of 4 or 16 bytes into 16, an IPv4 one mapped."""
    for i in range(16 - size):
        address[i] = 0 if i < 10 else 0xFF
    copy_bytes(address, 16 - size, data, at, size)


@kernel_in_place
def _transport(data: Any, proto: Any, at: Any, stop: Any, end: Any, packet: Any) -> Any:
    """What lies at `at` behind an IP header, whose datagram ends at `stop` and whose frame ends at `end`."""
    numbers = packet.numbers
    if proto not in (UDP, TCP):
        numbers[_END] = min(stop, end)
        if proto in (IPIP, IPV6_IN_IP):
            return _next(packet, at, IP_ANY)
        if proto == GRE:
            return _gre(data, at, min(stop, end), packet)
        if proto == ETHERIP:  # RFC 3378
            return _next(packet, at + 2, ETHER_BRIDGED)
        return _next(packet, at, ETHER_MPLS) if proto == MPLS_IN_IP else _skip(packet, PROTOCOLS + proto)
    if at + 4 > end:
        return _skip(packet, SHORT)
    numbers[SPORT], numbers[DPORT] = u16(data, at), u16(data, at + 2)
    if proto == TCP:
        if at + 14 > end:
            return _skip(packet, SHORT)
        numbers[SEQ], numbers[FLAGS] = u32(data, at + 4, True), data[at + 13]
        numbers[PAYLOAD] = at + (int64(data[at + 12]) >> 4) * 4
        numbers[STOP] = max(min(stop, end), numbers[PAYLOAD])
        numbers[SIZE] = numbers[STOP] - numbers[PAYLOAD]
        return _FOUND + SEGMENT
    if at + 6 > end or u16(data, at + 4) < 8:
        return _skip(packet, SHORT if at + 6 > end else BAD_HEADER)
    numbers[PAYLOAD], numbers[SIZE] = at + 8, u16(data, at + 4) - 8
    numbers[STOP] = max(min(at + 8 + numbers[SIZE], stop, end), at + 8)
    if numbers[SPORT] != _DNS:
        kind = _udp_tunnel(numbers[DPORT], data, at + 8, numbers[STOP], packet)
        if kind != 0:
            numbers[_END] = numbers[STOP]
            return kind
    return _FOUND + DATAGRAM


@kernel_in_place
def _fragment(offset: Any, more: Any, start: Any, stop: Any, end: Any, packet: Any) -> Any:
    """A fragment with the bytes from `start` to `stop`, of which `end` may cut some."""
    numbers = packet.numbers
    numbers[SEQ], numbers[FLAGS], numbers[PAYLOAD], numbers[SIZE] = offset, more, start, max(stop - start, 0)
    numbers[STOP] = max(min(stop, end), start)
    return _FOUND + FRAGMENT


@kernel_in_place
def _ipv4(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """An IPv4 header. With segmentation offload its length is 0: the frame ends it."""
    if at + 10 > end:
        return _skip(packet, SHORT)
    numbers, length, start = packet.numbers, u16(data, at + 2), at + (int64(data[at]) & 0x0F) * 4
    numbers[IP_ID], numbers[TTL], numbers[PROTOCOL] = u16(data, at + 4), data[at + 8], data[at + 9]
    stop, part = at + length if length else end, u16(data, at + 6) & 0x3FFF
    whole = at + 20 <= end
    if whole:
        _copy_address(data, at + 12, 4, packet.source)
        _copy_address(data, at + 16, 4, packet.destination)
    if part:
        if not whole or start < at + 20:
            return _skip(packet, BAD_HEADER)
        return _fragment((part & 0x1FFF) * 8, part >> 13, start, stop, end, packet)
    kind = _transport(data, int64(data[at + 9]), start, stop, end, packet)
    # A header without its addresses that lies about its size may hold a UDP header.
    return kind if whole or kind < 0 or kind == _FOUND + DATAGRAM else _skip(packet, SHORT)


@kernel_in_place
def _ipv6(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """An IPv6 header and its extension headers (RFC 8200)."""
    if at + 40 > end:
        return _skip(packet, SHORT)
    numbers, length, proto, start = packet.numbers, u16(data, at + 4), int64(data[at + 6]), at + 40
    stop = at + 40 + length if length else end
    numbers[IP_ID], numbers[TTL] = -1, data[at + 7]
    _copy_address(data, at + 8, 16, packet.source)
    _copy_address(data, at + 24, 16, packet.destination)
    for _ in range(IPV6_EXTENSIONS_MAX):
        size = int64(8)
        if proto == IPV6_FRAGMENT:
            if start + 8 > end:
                return _skip(packet, SHORT)
            part, proto = u16(data, start + 2), int64(data[start])
            if part & 0xFFF9:
                numbers[IP_ID], numbers[PROTOCOL] = u32(data, start + 4, True), proto
                return _fragment(part & 0xFFF8, part & 1, start + 8, stop, end, packet)
        elif proto == IPV6_AUTH or proto in IPV6_SKIPPED:
            if start + 2 > end:
                return _skip(packet, SHORT)
            size = (int64(data[start + 1]) + (2 if proto == IPV6_AUTH else 1)) * (4 if proto == IPV6_AUTH else 8)
            proto = int64(data[start])
        else:
            numbers[PROTOCOL] = proto
            return _transport(data, proto, start, stop, end, packet)
        start += size
    return _skip(packet, DEEP)


@kernel_in_place
def _inner_link(link: Any, data: Any, start: Any, end: Any, packet: Any) -> Any:
    """Where Apple's packet tap names another link type, that one; the header is stepped over."""
    packet.numbers[_AT] = start
    if link not in (PKTAP, USER2) or start + 12 > end:
        return link
    size, inner = u32(data, start, False), u32(data, start + 8, False)
    if size < 12 or size > end - start or inner >= 1 << 16 or inner in (PKTAP, USER2):
        return link
    packet.numbers[_AT] = start + size
    return inner


@kernel_in_place
def find_packet(link: Any, data: Any, start: Any, end: Any, packet: Any) -> Any:
    """Read the frame data[start:end] into `packet`; NOTHING, DATAGRAM, SEGMENT or FRAGMENT."""
    numbers = packet.numbers
    numbers[_END] = end
    link = _inner_link(link, data, start, end, packet)
    kind = int64(_link_layer(link, data, numbers[_AT], end, packet))
    for _ in range(NESTING_MAX):
        if kind < 0:
            return NOTHING
        at, stop = numbers[_AT], numbers[_END]
        if at < start or at >= stop:
            numbers[WHY] = SHORT
            return NOTHING
        if kind in (ETHER_IP, ETHER_IP6, IP_ANY):
            version = data[at] >> 4
            if version == 4:
                kind = int64(_ipv4(data, at, stop, packet))
            elif version == 6:
                kind = int64(_ipv6(data, at, stop, packet))
            else:
                kind = int64(_skip(packet, BAD_HEADER))
            if kind > _FOUND:
                return kind - _FOUND
        else:
            kind = int64(_ether(kind, data, at, stop, packet))
    numbers[WHY] = DEEP
    return NOTHING
