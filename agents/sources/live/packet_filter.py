"""The filter that the kernel runs on each packet of an interface: DNS, and what may carry it in a mirror's framing.

A program of the classic BSD packet filter (McCanne and Jacobson, "The BSD Packet Filter", USENIX 1993; bpf(2),
linux/filter.h). What it lets through by mistake is sorted out later; what it drops is never seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agents.sources.capture.frame_kernels import (
    ETHER_E_TAG,
    ETHER_I_TAG,
    ETHER_IP,
    ETHER_IP6,
    ETHER_LEAST,
    ETHER_MPLS,
    ETHER_MPLS_UPSTREAM,
    ETHER_NSH,
    ETHER_PPPOE,
    ETHER_VLAN,
    ETHER_VN_TAG,
    ETHERIP,
    GENEVE,
    GRE,
    GTP_U,
    IPIP,
    IPV6_AUTH,
    IPV6_FRAGMENT,
    IPV6_IN_IP,
    IPV6_SKIPPED,
    L2TP,
    MPLS_IN_IP,
    MPLS_IN_UDP,
    TCP,
    TEREDO,
    TZSP,
    UDP,
    VXLAN,
    VXLAN_GPE,
    VXLAN_LINUX,
)

WHOLE = 0x40000
"""Bytes of a packet that are kept: all of it."""
PORTS_MAX = 32
"""DNS ports in one filter, at most: a jump reaches 255 instructions."""
_LD_H, _LD_B, _LD_IND_H, _LDX_MSH = 0x28, 0x30, 0x48, 0xB1
_JEQ, _JGE, _JSET, _RET = 0x15, 0x35, 0x45, 0x06
"""Codes of instructions (linux/bpf_common.h)."""
_TUNNEL_PORTS = (VXLAN, VXLAN_LINUX, VXLAN_GPE, GENEVE, GTP_U, MPLS_IN_UDP, L2TP, TZSP, TEREDO)
_TUNNELS = (IPIP, IPV6_IN_IP, GRE, ETHERIP, MPLS_IN_IP)
_TAGS = (*ETHER_VLAN, ETHER_MPLS, ETHER_MPLS_UPSTREAM, ETHER_PPPOE, ETHER_NSH, ETHER_VN_TAG, ETHER_E_TAG, ETHER_I_TAG)
_FRAGMENT_OFFSET = 0x1FFF
_LLC = (0xAAAA, 0x0606)
"""Service access points of SNAP and of IP (IEEE 802.2), behind a length in place of an EtherType."""


class FilterStep(NamedTuple):
    """One instruction; yes, no: labels that are jumped to, "" = the next instruction."""

    code: int
    number: int
    yes: str = ""
    no: str = ""
    label: str = ""


def _any(numbers: Iterable[int], yes: str) -> list[FilterStep]:
    return [FilterStep(_JEQ, number, yes) for number in numbers]


def _ports(at: int, code: int, ports: Sequence[int], more: Sequence[int], label: str) -> list[FilterStep]:
    """Look at both ports of a packet; more: of UDP."""
    steps = [FilterStep(code, at, label=label), *_any([*ports, *more], "keep")]
    return [*steps, FilterStep(code, at + 2), *_any([*ports, *more], "keep"), FilterStep(_RET, 0)]


def program(ports: Sequence[int], link: int) -> bytes:
    """The filter, as bytes of struct sock_filter. link: bytes of the link layer's header, 14 of Ethernet, 0 = none.

    ports: that carry DNS.
    """
    at = link
    steps: list[FilterStep] = []
    if link:
        steps += [
            FilterStep(_LD_H, 12),
            FilterStep(_JEQ, ETHER_IP, "ip4"),
            FilterStep(_JEQ, ETHER_IP6, "ip6"),
            *_any(_TAGS, "keep"),
        ]
        steps += [FilterStep(_JGE, ETHER_LEAST, "drop"), FilterStep(_LD_H, 14), *_any(_LLC, "keep")]
        steps += [FilterStep(_RET, 0, label="drop")]
    else:
        steps += [FilterStep(_LD_B, 0), FilterStep(_JGE, 0x60, "ip6")]
    steps += [
        FilterStep(_LD_B, at + 9, label="ip4"),
        *_any(_TUNNELS, "keep"),
        FilterStep(_JEQ, UDP, "part4"),
        FilterStep(_JEQ, TCP, "part4"),
    ]
    steps += [FilterStep(_RET, 0)]
    steps += [
        FilterStep(_LD_H, at + 6, label="part4"),
        FilterStep(_JSET, _FRAGMENT_OFFSET, "keep"),
        FilterStep(_LDX_MSH, at),
    ]
    steps += [FilterStep(_LD_B, at + 9), FilterStep(_JEQ, TCP, "tcp4")]
    steps += _ports(at, _LD_IND_H, ports, _TUNNEL_PORTS, "udp4")
    steps += _ports(at, _LD_IND_H, ports, (), "tcp4")
    steps += [
        FilterStep(_LD_B, at + 6, label="ip6"),
        *_any((*_TUNNELS, IPV6_FRAGMENT, IPV6_AUTH, *IPV6_SKIPPED), "keep"),
    ]
    steps += [FilterStep(_JEQ, UDP, "udp6"), FilterStep(_JEQ, TCP, "tcp6"), FilterStep(_RET, 0)]
    steps += _ports(at + 40, _LD_H, ports, _TUNNEL_PORTS, "udp6")
    steps += _ports(at + 40, _LD_H, ports, (), "tcp6")
    return _assembled(_with_returns(steps))


def _with_returns(steps: list[FilterStep]) -> list[FilterStep]:
    """With an instruction that keeps the packet within reach of each part: jumps are of 255 instructions at most."""
    made: list[FilterStep] = []
    for number, step in enumerate(steps):
        made.append(step)
        if step.code == _RET and step.number == 0:
            made.append(FilterStep(_RET, WHOLE, label=f"keep{number}"))
    return made


def _assembled(steps: list[FilterStep]) -> bytes:
    places = {step.label: at for at, step in enumerate(steps) if step.label}
    keeps = [at for at, step in enumerate(steps) if step.label.startswith("keep")]

    def distance(at: int, label: str) -> int:
        if not label:
            return 0
        to = next(place for place in keeps if place > at) if label == "keep" else places[label]
        assert 0 < to - at <= 256
        return to - at - 1

    return b"".join(
        struct.pack("HBBI", step.code, distance(at, step.yes), distance(at, step.no), step.number)
        for at, step in enumerate(steps)
    )
