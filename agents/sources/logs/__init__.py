"""Query logs of resolvers and network sensors, one kind a file. Importing this loads no compiler and no reader."""

from __future__ import annotations

from agents.sources.intake import Intake
from agents.sources.logs import (
    adguard,
    bind,
    coredns,
    dnsdist,
    dnsmasq,
    route53,
    suricata,
    unbound,
    windows,
    windows_events,
    zeek,
)

SPECS: tuple[Intake, ...] = (
    bind.SPEC,
    adguard.SPEC,
    zeek.SPEC,
    suricata.SPEC,
    dnsmasq.SPEC,
    unbound.SPEC,
    dnsdist.SPEC,
    coredns.SPEC,
    route53.SPEC,
    windows.SPEC,
    windows_events.SPEC,
)
"""In the order in which a file's content is compared with them."""
