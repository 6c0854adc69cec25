"""Who may ask, and what one client, domain and upstream may have of the listener: shares of its table, rates over UDP.

Rates count a client's network, since a forged source may be any address of it. They hold for UDP alone: over TCP an
address is proven, and connections have bounds of their own. An answer that slips has TC set, so that an honest client
asks again over TCP (as response rate limiting of BIND does).
"""

from __future__ import annotations

import ipaddress
import mmap
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from time import monotonic_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Field, Spec, Within
from agents.sources.listener.traffic_kernels import (
    BUCKET,
    KEYED,
    RATES,
    domain_at,
    limit_query,
    limit_response,
    mask_network,
)
from agents.stream.record import mapped

_REMEMBERED_MAX = 65536
"""Addresses that are remembered; sources can be forged, so the memory is dropped when it is full."""


class AccessList:
    """Networks whose addresses may ask, "10.0.0.0/8" or a single address: no open resolver by accident.

    `known` maps the textual address of each client seen to its 16 bytes, or to None if it may not ask. Raises
    ValueError.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network.strip(), strict=False) for network in networks]
        self.known: dict[str, bytes | None] = {}

    def look_up(self, client: str) -> bytes | None:
        """The address as 16 bytes if it is in one of the networks, else None. client: text without a zone index."""
        if client in self.known:
            return self.known[client]
        address = ipaddress.ip_address(client)
        found = mapped(address.packed) if any(address in network for network in self._networks) else None
        if len(self.known) >= _REMEMBERED_MAX:
            self.known.clear()
        self.known[client] = found
        return found

    def allows(self, client: str) -> bool:
        """Whether the address may ask."""
        return self.look_up(client) is not None

    def ranges(self, version: int) -> NDArray[np.uint64]:
        """The networks of IPv4 or IPv6 (version 4 or 6) as the kernel `allowed` takes them."""
        own: list[ipaddress.IPv4Network] = [one for one in self._networks if one.version == version]  # type: ignore[misc]
        merged = ipaddress.collapse_addresses(own)
        ends = [(int(one.network_address), int(one.broadcast_address)) for one in merged]
        low = 2**64 - 1
        rows = [(first >> 64, first & low, last >> 64, last & low) for first, last in ends]
        return np.array(rows, np.uint64).reshape(-1, 4)


def address_bytes(client: str) -> bytes:
    """16 bytes of a textual address without a zone index, IPv4 mapped."""
    return mapped(ipaddress.ip_address(client).packed)


BUCKETS = 1 << 16
"""Networks, or networks and names, that are limited at once: 2 MB."""


def _networks(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _check_networks(text: str) -> None:
    for part in _networks(text):
        ipaddress.ip_network(part, strict=False)


_share, _rate = Within(0.001, 1), Within(0, 1e6)
LOOPBACK = "127.0.0.0/8,::1/128"
"""Networks without limits by default: there a local forwarder asks for everybody."""
FIELDS = (
    Field("inflight_client_share", float, 0.25, "most of INFLIGHT_MAX that one client may hold", _share),
    Field("inflight_domain_share", float, 0.25, "most of INFLIGHT_MAX that queries below one domain may hold", _share),
    Field(
        "inflight_upstream_share",
        float,
        0.5,
        "most of INFLIGHT_MAX that may wait for one upstream, where there are several",
        _share,
    ),
    Field(
        "client_qps_max",
        float,
        5000.0,
        "UDP queries a second of one client network; above it queries are dropped; 0 = no limit",
        _rate,
    ),
    Field("rrl_responses_per_s", float, 0.0, "equal answers a second to one network over UDP; 0 = no limit", _rate),
    Field("rrl_nxdomains_per_s", float, 0.0, "NXDOMAIN a second to one network and domain; 0 = no limit", _rate),
    Field("rrl_errors_per_s", float, 0.0, "errors a second to one network; 0 = no limit", _rate),
    Field("rrl_window_s", float, 15.0, "seconds for which RRL_… remember a flood", Within(1, 3600)),
    Field("rate_slip", int, 2, "one in so many dropped answers is sent with TC instead; 0 = none", Within(0, 10)),
    Field("rate_prefix_v4", int, 24, "bits of an IPv4 address that make a client network", Within(8, 32)),
    Field("rate_prefix_v6", int, 56, "bits of an IPv6 address that make a client network", Within(16, 128)),
    Field("rate_exempt", str, LOOPBACK, "networks without limits, comma-separated", _check_networks),
)


class TrafficLimits:
    """The limits, and the buckets: processes forked from the one that made it share them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """values: of FIELDS, by their names."""
        self.shares = [float(values[f"inflight_{of}_share"]) for of in ("client", "domain", "upstream")]
        self.exempt = AccessList(_networks(values["rate_exempt"]))
        self.buckets: NDArray[Any] = np.frombuffer(mmap.mmap(-1, BUCKETS * BUCKET.itemsize), BUCKET)
        self.rates: NDArray[Any] = np.zeros(1, RATES)
        rates = self.rates[0]
        rates["queries"], rates["window_s"] = values["client_qps_max"], values["rrl_window_s"]
        for kind in ("responses", "nxdomains", "errors"):
            rates[kind] = values[f"rrl_{kind}_per_s"]
        rates["slip"], rates["prefix4"] = values["rate_slip"], values["rate_prefix_v4"]
        rates["prefix6"] = values["rate_prefix_v6"]
        rates["low"], rates["high"] = secrets.randbits(64), secrets.randbits(64)
        self._keyed, self._name = np.zeros(KEYED, np.uint8), np.zeros(KEYED, np.uint8)

    @property
    def limits_responses(self) -> bool:
        """Whether any response rate is limited."""
        return any(self.rates[0][kind] > 0 for kind in ("responses", "nxdomains", "errors"))

    def on_query(self, client: bytes) -> int:
        """The verdict of traffic_kernels on a query over UDP."""
        self._network(client)
        return int(limit_query(self.buckets, self.rates, self._keyed, monotonic_ns()))

    def on_response(self, client: bytes, qname: bytes, qtype: int, rcode: int) -> int:
        """The verdict of traffic_kernels on an answer over UDP."""
        self._network(client)
        self._name[: len(qname)] = np.frombuffer(qname, np.uint8)
        name, size, now = self._name, len(qname), monotonic_ns()
        return int(limit_response(self.buckets, self.rates, self._keyed, name, 0, size, qtype, rcode, now))

    def _network(self, client: bytes) -> None:
        self._keyed[: len(client)] = np.frombuffer(client, np.uint8)
        mask_network(self._keyed, self.rates)


SPEC: Spec[TrafficLimits] = Spec("traffic", "limits for clients, domains and upstreams", FIELDS, TrafficLimits)


def default_limits(**changed: Any) -> TrafficLimits:
    """Limits as the settings' defaults have them, but for `changed`."""
    return TrafficLimits(SPEC.values(changed))


class Shares:
    """Queries in flight of each client, domain and upstream, of those that the event loop forwards."""

    def __init__(self, shares: list[float], inflight_max: int, upstreams: int) -> None:
        self.most = shares_of(shares, inflight_max, upstreams)
        self._held: tuple[Counter[Any], ...] = (Counter(), Counter(), Counter())

    def refusal(self, keys: tuple[Any, Any, Any]) -> int | None:
        """Which share is used up: 0 the client's (key None = without limit), 1 the domain's, 2 the upstream's."""
        for number, (key, held, most) in enumerate(zip(keys, self._held, self.most, strict=True)):
            if key is not None and held[key] >= most:
                return number
        return None

    def hold(self, keys: tuple[Any, Any, Any]) -> None:
        """A query takes its place in each."""
        for key, held in zip(keys, self._held, strict=True):
            held[key] += 1

    def free(self, keys: tuple[Any, Any, Any]) -> None:
        """It gives them back."""
        for key, held in zip(keys, self._held, strict=True):
            held[key] -= 1
            if not held[key]:
                del held[key]


def shares_of(shares: list[float], inflight_max: int, upstreams: int) -> list[int]:
    """Queries that a client, a domain and an upstream may hold. The only upstream may hold all."""
    client, domain, upstream = (max(1, int(share * inflight_max)) for share in shares)
    return [client, domain, upstream if upstreams > 1 else inflight_max]


def domain_of(qname: bytes) -> bytes:
    """The domain of a wire name in lower case, as traffic_kernels.domain_at finds it."""
    return qname[domain_at(np.frombuffer(bytearray(qname), np.uint8), 0, len(qname)) :].lower()
