"""From settings to what queries come from: listeners with their upstreams, logs that are followed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents import enforcement
from agents.alerting.delivery import PLAIN_HTTP, is_loopback
from agents.core.errors import SettingsError
from agents.core.text import printable
from agents.detection import privacy
from agents.dns.blocks import BLOCKS_FILE
from agents.dns.strict_groups import StrictGroups, read_groups
from agents.enforcement.options import EnforceMode, EnforceOptions
from agents.runtime.listener_process import ListenerConfig
from agents.settings import Settings
from agents.sources import SPECS as INTAKES
from agents.sources import losses_of
from agents.sources.capture import ports_of
from agents.sources.collector import Collecting
from agents.sources.listener import cache, special_names, traffic
from agents.sources.listener.blocking.blocking import BlockConfig
from agents.sources.listener.upstream import (
    Outgoing,
    UpstreamAddress,
    distinct_of,
    parse_upstreams,
    system_resolvers,
)
from agents.sources.listener.upstream_watch import LoopProbes, shared_counts
from agents.sources.live.addresses import FIDELITIES, RECEIVE, is_live, parse_live, tls_context
from agents.sources.live.receiver import Receiving
from agents.sources.logs import SPECS as LOGS
from agents.sources.tail import COLLECT, COLLECT_MAX, files_of, is_address


def upstreams_of(settings: Settings) -> list[tuple[str, list[UpstreamAddress]]]:
    """Zones and their upstreams; what no zone claims goes to the system's resolvers unless UPSTREAMS says where."""
    upstreams = parsed_upstreams(settings)
    if not any(zone == "" for zone, _ in upstreams):
        upstreams.append(("", system_resolvers()))
    return upstreams


def parsed_upstreams(settings: Settings) -> list[tuple[str, list[UpstreamAddress]]]:
    try:
        return parse_upstreams(settings.upstreams)
    except ValueError as error:
        raise SettingsError(f"cannot use setting UPSTREAMS={settings.upstreams}: {error}") from None


def listener_config(settings: Settings) -> ListenerConfig:
    """What the listeners are to do."""
    upstreams = upstreams_of(settings)
    return ListenerConfig(
        hosts=[host.strip() for host in settings.listen_host.split(",")],
        port=settings.listen_port,
        processes=_processes(settings),
        upstreams=upstreams,
        allowed_clients=[part.strip() for part in settings.allowed_clients.split(",") if part.strip()],
        timeout_s=settings.upstream_timeout_s,
        tcp_clients_max=settings.tcp_clients_max,
        tcp_idle_s=settings.tcp_idle_s,
        inflight_max=settings.inflight_max,
        client_wait_s=settings.client_wait_s,
        retry_failed=settings.retry_failed,
        limits=traffic.SPEC.factory(settings.of(traffic.SPEC)),
        cache=cache.SPEC.factory(settings.of(cache.SPEC)),
        outgoing=_outgoing(settings),
        special=special_names.SPEC.factory(settings.of(special_names.SPEC)),
        strict=strict_groups_of(settings),
        blocks=_block_config(settings),
        probes=LoopProbes() if settings.detect_loops else None,
        mismatched=shared_counts(len(distinct_of(endpoints for _, endpoints in upstreams))),
    )


def enforce_options_of(settings: Settings) -> EnforceOptions:
    """ENFORCE and what belongs to it; without addresses a tunnel is blocked for all. Raises SettingsError."""
    options = enforcement.SPEC.factory(settings.of(enforcement.SPEC))
    mode = settings.of(privacy.SPEC)["privacy"]
    if mode == "off":
        return options
    # Of shortened addresses nobody can count how many clients a domain is popular with.
    why = "PRIVACY=truncate hides how many clients ask for a domain" if mode == "truncate" else ""
    return replace(options, for_all=True, people_alone=why)


def _block_config(settings: Settings) -> BlockConfig | None:
    """Where listeners read blocks; None where none is in force."""
    options = enforce_options_of(settings)
    if options.mode != EnforceMode.ON:
        return None
    return BlockConfig(settings.state_dir / BLOCKS_FILE, options.sinkhole, _processes(settings))


def _processes(settings: Settings) -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return settings.listener_processes or cores


def _outgoing(settings: Settings) -> Outgoing:
    prefixes = (settings.ecs_prefix_v4, settings.ecs_prefix_v6) if settings.ecs == "on" else (0, 0)
    return Outgoing(settings.forward == "normalised", prefixes)


def losses_at_start(
    collecting: Collecting | None, listens: bool, receiving: Receiving | None = None
) -> tuple[str, ...]:
    """What logs and live intakes do not keep, as far as it is known. A listener answers, whatever state they are in."""
    kinds, unknown = collecting.kinds(strict=not listens) if collecting else ([], [])
    heard = receiving.addresses if receiving else ()
    kinds += [kind for one in heard for kind in INTAKES if kind.name == one.format]
    untold = [*map(str, unknown), *(one.name for one in heard if one.kind == "syslog" and not one.format)]
    live = {one.kind: FIDELITIES[one.kind] for one in heard}
    return (
        *losses_of(kinds, named=listens or bool(live)),
        *(f"{kind}: {text}" for kind, fidelity in live.items() for text in fidelity.losses),
        *(f"answers: not known until the kind of {printable(name)} is found" for name in untold),
    )


def collecting_of(
    settings: Settings, files: Sequence[str] = (), format: str = "", from_start: bool = False
) -> Collecting | None:
    """The logs that are followed: `files`, or those of COLLECT_FILES; None if there are none. Raises SettingsError.

    files: paths, and addresses of Pi-holes; those of live intakes are left out.
    """
    values = settings.of(COLLECT)
    named = files or files_of(values)
    format = _format_of(values, format)
    if len(named) > COLLECT_MAX:
        raise SettingsError(f"cannot use setting COLLECT_FILES: more than {COLLECT_MAX} files")
    names = [name for name in named if not is_live(name)]
    if not names:
        return None
    _refuse_plain_password(settings, names, values["pihole_password"])
    return Collecting(
        paths=list(dict.fromkeys(Path(name).absolute() for name in names if not is_address(name))),
        state_dir=settings.state_dir,
        format=format,
        from_start=from_start,
        options={name: value for kind in INTAKES for name, value in settings.of(kind).items()},
        pi_holes=list(dict.fromkeys(filter(is_address, names))),
        pihole_password=values["pihole_password"],
    )


def _format_of(values: dict[str, Any], format: str) -> str:
    format = format or str(values["collect_format"])
    if format not in {"auto", *(kind.name for kind in INTAKES)}:
        raise SettingsError(f"cannot use setting COLLECT_FORMAT={format}: there is no such kind of log")
    return format


def receiving_of(settings: Settings, files: Sequence[str] = (), format: str = "") -> Receiving | None:
    """The live intakes among `files`, or those of COLLECT_FILES; None if there are none. Raises SettingsError."""
    named, values = settings.of(COLLECT), settings.of(RECEIVE)
    lines = tuple(kind.name for kind in LOGS if kind.reader is not None)
    names = dict.fromkeys(name for name in files or files_of(named) if is_live(name))
    if not names:
        return None
    addresses = [parse_live(name, lines) for name in names]
    allowed = str(values["receive_allowed"]) or settings.allowed_clients
    options = {name: value for kind in INTAKES for name, value in settings.of(kind).items()}
    format = _format_of(named, format)
    return Receiving(
        addresses,
        settings.state_dir,
        [part.strip() for part in allowed.split(",") if part.strip()],
        sorted(ports_of(str(options["replay_ports"]))),
        values,
        options,
        format if format in lines else "auto",
        tls_context(values) if any(one.transport == "tls" for one in addresses) else None,
    )


def _refuse_plain_password(settings: Settings, names: Sequence[str], password: str) -> None:
    """Raise SettingsError where the password would travel in the clear, as for webhooks."""
    plain = [name for name in names if name.startswith("http://") and not is_loopback(urlsplit(name).hostname or "")]
    if password and plain and settings.webhooks_plain_http != "on":
        raise SettingsError(
            f"cannot use setting PIHOLE_PASSWORD: {printable(plain[0])} is http:// to another machine"
            f" ({PLAIN_HTTP.upper()}=on)"
        )


def strict_groups_of(settings: Settings) -> StrictGroups:
    """STRICT_CLIENTS; names that this listener answers itself are no offence. Raises SettingsError."""
    try:
        groups = read_groups(settings.strict_clients, settings.data_dir)
    except SettingsError as error:
        raise SettingsError(f"cannot use setting STRICT_CLIENTS={settings.strict_clients}: {error}") from None
    return StrictGroups(groups, [one.name for one in special_names.SPEC.factory(settings.of(special_names.SPEC))])
