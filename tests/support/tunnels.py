"""Headers around packets for tests: link layers, tags and tunnels, each as its standard writes it."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

from agents.sources.capture import frame_kernels as ll
from tests.support.captures import ip4, ip6, udp

Around = Callable[[bytes], bytes]
OUTER = ("198.51.100.1", "198.51.100.2")


def kind_of(packet: bytes) -> int:
    """EtherType of an IP packet."""
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def ethernet(packet: bytes, kind: int = 0, tags: bytes = b"", first: int = 2) -> bytes:
    """An Ethernet frame; tags: TPIDs and TCIs; first: the first byte of its destination."""
    return bytes((first,)) + b"\0\0\0\0\2\2\0\0\0\0\1" + tags + pack("!H", kind or kind_of(packet)) + packet


def vlan(*tpids: int) -> bytes:
    return b"".join(pack("!HH", tpid, 100 + number) for number, tpid in enumerate(tpids))


def _over4(body: bytes, proto: int) -> bytes:
    return ip4(body, *OUTER, proto=proto)


def _over_udp(payload: bytes, port: int) -> bytes:
    return ip4(udp(payload, 49_152, port), *OUTER)


def _ppp(packet: bytes) -> bytes:
    return (b"\0\x57" if kind_of(packet) == 0x86DD else b"\0\x21") + packet


def _pppoe(packet: bytes) -> bytes:
    return pack("!BBHH", 0x11, 0, 17, len(packet) + 2) + _ppp(packet)


def _gre(flags: int, kind: int, packet: bytes) -> bytes:
    options = (4 if flags & 0x8000 else 0) + (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
    return _over4(pack("!HH", flags, kind) + b"\7" * options + packet, ll.GRE)


def _labels(count: int) -> bytes:
    return b"".join(pack("!I", 16 + at << 12 | (at == count - 1) << 8 | 64) for at in range(count))


def _gtp(packet: bytes, flags: int = 0x30, extension: bytes = b"") -> bytes:
    options = bytes(3) + (b"\x85" if flags & 4 else b"\0") if flags & 7 else b""
    return pack("!BBHI", flags, 255, len(packet) + len(options) + len(extension), 77) + options + extension + packet


TUNNELS: dict[str, Around] = {
    "vxlan": lambda p: _over_udp(pack("!II", 0x08000000, 5 << 8) + ethernet(p), 4789),
    "vxlan-linux-tagged": lambda p: _over_udp(pack("!II", 0x08000000, 5 << 8) + ethernet(p, tags=vlan(0x8100)), 8472),
    "vxlan-gpe": lambda p: _over_udp(pack("!BHBI", 12, 0, 2 if kind_of(p) == 0x86DD else 1, 5 << 8) + p, 4790),
    "vxlan-gpe-ethernet": lambda p: _over_udp(pack("!BHBI", 12, 0, 3, 5 << 8) + ethernet(p), 4790),
    "geneve": lambda p: _over_udp(pack("!BBHI", 0, 0, 0x6558, 5 << 8) + ethernet(p), 6081),
    "geneve-options": lambda p: _over_udp(
        pack("!BBHI", 3, 0, 0x6558, 5 << 8) + b"\x01\x02\x80\x02" + bytes(8) + ethernet(p), 6081),
    "geneve-ip": lambda p: _over_udp(pack("!BBHI", 0, 0, kind_of(p), 5 << 8) + p, 6081),
    "gre": lambda p: _gre(0, kind_of(p), p),
    "gre-key": lambda p: _gre(0x2000, kind_of(p), p),
    "gre-checksum-key-sequence": lambda p: _gre(0xB000, kind_of(p), p),
    "gre-bridged": lambda p: _gre(0x2000, 0x6558, ethernet(p)),
    "gre-mpls": lambda p: _gre(0, 0x8847, _labels(1) + p),
    "gre-pptp": lambda p: _over4(pack("!HHHHII", 0x3081, 0x880B, len(p) + 4, 1, 2, 3) + b"\xff\x03" + _ppp(p), ll.GRE),
    "gre-over-6": lambda p: ip6(pack("!HH", 0, kind_of(p)) + p, proto=ll.GRE),
    "erspan-1": lambda p: _gre(0, 0x88BE, ethernet(p)),
    "erspan-2": lambda p: _gre(0x1000, 0x88BE, pack("!HHI", 0x1064, 5, 0) + ethernet(p)),
    "erspan-3": lambda p: _gre(0x1000, 0x22EB, pack("!HHIHH", 0x2064, 5, 0, 0, 0) + ethernet(p)),
    "erspan-3-platform": lambda p: _gre(0x1000, 0x22EB, pack("!HHIHH", 0x2064, 5, 0, 0, 1) + bytes(8) + ethernet(p)),
    "ip-in-ip": lambda p: _over4(p, ll.IPV6_IN_IP if kind_of(p) == 0x86DD else ll.IPIP),
    "ip-in-6": lambda p: ip6(p, proto=ll.IPV6_IN_IP if kind_of(p) == 0x86DD else ll.IPIP),
    "extension-headers": lambda p: ip6(
        bytes((43, 0)) + bytes(6) + bytes((51, 1)) + bytes(14) + bytes((60, 4)) + bytes(22)
        + bytes((41 if kind_of(p) == 0x86DD else 4, 0)) + bytes(6) + p, proto=0),
    "etherip": lambda p: _over4(b"\x30\0" + ethernet(p), ll.ETHERIP),
    "mpls-in-ip": lambda p: _over4(_labels(2) + p, ll.MPLS_IN_IP),
    "mpls-in-udp": lambda p: _over_udp(_labels(1) + p, 6635),
    "gtp-u": lambda p: _over_udp(_gtp(p), 2152),
    "gtp-u-sequence": lambda p: _over_udp(_gtp(p, 0x32), 2152),
    "gtp-u-extensions": lambda p: _over_udp(_gtp(p, 0x34, b"\1\0\1\xc0" + b"\2\0\0\0\0\0\0\0"), 2152),
    "l2tp": lambda p: _over_udp(pack("!HHHH", 0x4002, 0, 7, 8) + b"\xff\x03" + _ppp(p), 1701),
    "tzsp": lambda p: _over_udp(b"\1\0\0\1" + b"\x0a\1\0" + b"\0\1" + ethernet(p), 37_008),
}  # fmt: skip
"""Name -> an IP packet inside that tunnel, which is an IP packet again."""


def wifi(packet: bytes, control: int = 0x08, flags: int = 1, pad: bytes = b"", cipher: bytes = b"") -> bytes:
    """An 802.11 data frame; pad: behind the header; cipher: a cipher's header."""
    size = 24 + (6 if flags & 3 == 3 else 0) - 2
    quality = b"\0\0" + (bytes(4) if flags & 0x80 else b"") if control & 0x80 else b""
    snap = b"\xaa\xaa\x03\0\0\0" + pack("!H", kind_of(packet))
    return bytes((control, flags)) + b"\2" * size + quality + pad + cipher + snap + packet


def radiotap(frame: bytes, size: int = 8) -> bytes:
    return pack("<BBHI", 0, 0, size, 0) + bytes(size - 8) + frame


def pseudowire(packet: bytes, word: bytes, first: int) -> bytes:
    """Ethernet over MPLS over Ethernet."""
    return ethernet(_labels(2) + word + ethernet(packet, first=first), 0x8847)


def nflog(packet: bytes, order: str = "<") -> bytes:
    tlvs = (
        pack(order + "HH", 5, 10) + b"x\0\0\0" + pack(order + "HHI", 8, 3, 1) + pack(order + "HH", 4 + len(packet), 9)
    )
    return bytes((2, 0, 0, 5)) + tlvs + packet


def pktap(frame: bytes, link: int) -> bytes:
    return pack("<III", 108, 1, link) + bytes(96) + frame


LINKED: dict[str, tuple[int, Around]] = {
    "qinq": (ll.ETHERNET, lambda p: ethernet(p, tags=vlan(0x88A8, 0x8100))),
    "three old tags": (ll.ETHERNET, lambda p: ethernet(p, tags=vlan(0x9100, 0x9100, 0x8100))),
    "vn-tag": (ll.ETHERNET, lambda p: ethernet(p, tags=b"\x89\x26\0\0\0\1")),
    "e-tag": (ll.ETHERNET, lambda p: ethernet(p, tags=b"\x89\x3f\0\0\0\1\0\0")),
    "mac-in-mac": (ll.ETHERNET, lambda p: ethernet(pack("!I", 7) + ethernet(p), 0x88E7, vlan(0x88A8))),
    "snap": (ll.ETHERNET, lambda p: ethernet(b"\xaa\xaa\x03\0\0\0" + pack("!H", kind_of(p)) + p, len(p) + 8)),
    "pppoe": (ll.ETHERNET, lambda p: ethernet(_pppoe(p), 0x8864)),
    "pppoe tagged": (ll.ETHERNET, lambda p: ethernet(_pppoe(p), 0x8864, vlan(0x8100))),
    "mpls": (ll.ETHERNET, lambda p: ethernet(_labels(3) + p, 0x8847)),
    "pseudowire": (ll.ETHERNET, lambda p: pseudowire(p, b"", 2)),
    "pseudowire 00:": (ll.ETHERNET, lambda p: pseudowire(p, b"", 0)),
    "pseudowire 4c:": (ll.ETHERNET, lambda p: pseudowire(p, b"", 0x4C)),
    "pseudowire 6c:": (ll.ETHERNET, lambda p: pseudowire(p, b"", 0x6C)),
    "pseudowire with control word": (ll.ETHERNET, lambda p: pseudowire(p, bytes(4), 0)),
    "nsh": (ll.ETHERNET, lambda p: ethernet(pack("!BBBBI", 0x0F, 0xC2, 2, 3, 9) + ethernet(p), 0x894F)),
    "sll2 tagged": (ll.LINUX_SLL2, lambda p: b"\x81\0" + bytes(18) + pack("!HH", 7, kind_of(p)) + p),
    "sll2 qinq": (ll.LINUX_SLL2, lambda p: b"\x88\xa8" + bytes(18) + pack("!HHHH", 7, 0x8100, 8, kind_of(p)) + p),
    "ppp": (ll.PPP, _ppp),
    "ppp with address": (ll.PPP, lambda p: b"\xff\x03" + _ppp(p)),
    "ppp short": (ll.PPP, lambda p: _ppp(p)[1:]),
    "ppp-hdlc": (ll.PPP_HDLC, lambda p: b"\xff\x03" + _ppp(p)),
    "ppp-ether": (ll.PPP_ETHER, _pppoe),
    "pppd": (ll.PPP_PPPD, lambda p: b"\1\x03" + _ppp(p)),
    "ppp with direction": (ll.PPP_WITH_DIR, lambda p: b"\1\xff\x03" + _ppp(p)),
    "cisco hdlc": (ll.C_HDLC, lambda p: b"\x0f\0" + pack("!H", kind_of(p)) + p),
    "enc": (ll.ENC, lambda p: bytes(12) + p),
    "nflog": (ll.NFLOG, nflog),
    "nflog big-endian": (ll.NFLOG, lambda p: nflog(p, ">")),
    "pktap": (ll.PKTAP, lambda p: pktap(ethernet(p), ll.ETHERNET)),
    "pktap raw": (ll.PKTAP, lambda p: pktap(p, 12)),
    "user2": (ll.USER2, lambda p: pktap(ethernet(p), ll.ETHERNET)),
    "wifi": (ll.WIFI, wifi),
    "wifi qos": (ll.WIFI, lambda p: wifi(p, 0x88)),
    "wifi qos padded": (ll.WIFI, lambda p: wifi(p, 0x88, pad=b"\0\0")),
    "wifi four addresses, ht control": (ll.WIFI, lambda p: wifi(p, 0x88, 0x83)),
    "wifi deciphered": (ll.WIFI, lambda p: wifi(p, 0x88, 0x41, cipher=b"\1\2\0\x20\0\0\0\0")),
    "radiotap": (ll.RADIOTAP, lambda p: radiotap(wifi(p), 36)),
    "prism": (ll.PRISM, lambda p: pack("<II", 0x44, 144) + bytes(136) + wifi(p)),
    "avs": (ll.AVS, lambda p: pack("!II", 0x80211001, 64) + bytes(56) + wifi(p)),
    "avs in prism": (ll.PRISM, lambda p: pack("!II", 0x80211001, 64) + bytes(56) + wifi(p)),
}  # fmt: skip
"""Name -> link type, and an IP packet inside a frame of it."""
