"""`dns-tunnel doctor`: one line for each check; exit code 1 if any check fails, 2 for a bad setting."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import numpy as np
from dnslib import DNSError, DNSRecord

from agents.alerting.delivery import Channel
from agents.alerting.handover import oldest_s
from agents.alerting.manager import CHANNELS, channel_values
from agents.alerting.messages import TEST_MESSAGE
from agents.alerting.summary import likely_own
from agents.cli.health import request_health
from agents.cli.upkeep.block import enforcement_text
from agents.cli.upkeep.heard import intakes_text
from agents.core.errors import AgentsError, SettingsError, StoreError
from agents.core.protocols import Spec
from agents.core.text import amount_text, command, counted, printable, utc
from agents.core.types import DAY_S, Incident
from agents.detection.explanations.known_desk import INCIDENTS_MAX, WEEK_S
from agents.detection.known_services import own_zone
from agents.detection.limits import SCATTERED, bounds
from agents.detection.network import network_bound
from agents.detection.tripwires.honeytokens import load_honeytokens
from agents.export.outputs import OUTPUTS
from agents.runtime import bootstrap
from agents.runtime.bus.cluster_models import cluster_models
from agents.runtime.drill.drill import drill_text
from agents.runtime.health import UNSENT_S
from agents.runtime.heartbeat import OUTBOX, PARTS, detector_health, read_heartbeat, settings_in_force
from agents.scoring import MODEL_TYPES
from agents.settings import RENAMED, Settings, old_names, unknown_names
from agents.sources import SPECS as INTAKES
from agents.sources.listener.server import refuse_loops
from agents.sources.listener.sockets import bind_pair
from agents.sources.listener.streams import exchange_of
from agents.sources.listener.upstream import Upstream, search_domains
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import day_text

TIMEOUT_S = 2.0
SHOWN_MAX = 80
"""Characters shown of a setting, at most."""
ZONES_SHOWN = 10
"""Zones that are proposed, at most."""
TEXT_MAX = 1000
"""Characters shown of a line, at most."""
CHANNEL_SETTINGS = ", ".join(spec.switch for spec in CHANNELS)
Check = Callable[[Settings], str]


def doctor(settings: Settings, options: argparse.Namespace) -> int:
    """Print one line for each check."""
    code = 0
    running = {part: _in_force(settings, part) for part in PARTS}
    for name, part, check in (*CHECKS, *((SEND,) if options.send else ())):
        try:
            text, mark = check(running.get(part, settings)), "ok "
        except (AgentsError, OSError) as error:
            text, mark, code = _said(error), "BAD", max(code, 2 if isinstance(error, SettingsError) else 1)
        print(f"{mark}  {name:<12} {printable(text, TEXT_MAX)}")
    for name, text in _remarks(settings):
        print(f"warn {name:<12} {text}")
    return code


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    return str(error)


def _in_force(settings: Settings, part: str) -> Settings:
    """The settings of a part that runs on this DATA_DIR, those of this shell where it does not."""
    noted = settings_in_force(settings.state_dir, part)
    return bootstrap.as_noted(settings, noted) if noted else settings


def _differences(settings: Settings) -> Iterator[tuple[str, str]]:
    """Where a running part has other settings than this shell: what was changed takes a restart."""
    for part in PARTS:
        found = bootstrap.differing_settings(settings, settings_in_force(settings.state_dir, part))
        for name, (there, here) in found.items():
            if name in _secrets_elsewhere(settings, part):
                continue
            shown = _shown(settings, name, there), _shown(settings, name, here)
            yield part, f"{name.upper()} is {shown[0]} in what runs, and {shown[1]} here; a restart takes it over"


def _secrets_elsewhere(settings: Settings, part: str) -> set[str]:
    """Secrets that a part does not use, and need not hold."""
    channels = {field.name for spec in CHANNELS for field in spec.fields if field.secret}
    unused = channels if part == "listener" and settings.alerts_sent_by == "scheduler" else set()
    return unused if part == "api" else unused | {"api_token"}


def _shown(settings: Settings, name: str, value: object) -> str:
    if bootstrap.is_secret(settings, name):
        return "another" if value else "not set"
    return printable(str(value), SHOWN_MAX) if value not in ("", None) else "empty"


def _remarks(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in unknown_names(settings):
        yield "settings", f".env names {printable(name, 60)}, which is no setting"
    for name in old_names():
        yield "settings", f"{name} is called {RENAMED[name]} now"
    yield from _differences(settings)


def _settings(settings: Settings) -> str:
    bootstrap.check_settings(settings)
    return f"read; DATA_DIR is {settings.data_dir.absolute()}"


def _database(settings: Settings) -> str:
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()  # every process does this first; without tables there is nothing to check
        store.ping()
        kind = "Postgres" if settings.database_url.startswith("postgres") else "SQLite"
    return f"{kind} answers"


def _port(settings: Settings) -> str:
    if detector_health(settings.state_dir)[0]:
        return "a listener runs on this DATA_DIR"
    for host in (part.strip() for part in settings.listen_host.split(",")):
        for sock in bind_pair(host, settings.listen_port):
            sock.close()
    return f"{settings.listen_host} port {settings.listen_port} is free (UDP and TCP)"


def _upstreams(settings: Settings) -> str:
    asked = [endpoint for _, endpoints in bootstrap.upstreams_of(settings) for endpoint in endpoints]
    if not asked:
        raise AgentsError("cannot forward: UPSTREAMS is empty and the system names no resolver")
    hosts = settings.listen_host.split(",")
    upstreams = [Upstream(endpoint, np.zeros(1, np.int64)) for endpoint in asked]
    refuse_loops(upstreams, [(host.strip(), settings.listen_port) for host in hosts])
    for upstream in upstreams:
        _ask(upstream)
    return ", ".join(map(str, asked)) + " answered" + (" each" if len(asked) > 1 else "")


def _ask(upstream: Upstream) -> None:
    query = DNSRecord.question(".", "NS")
    query.header.id = secrets.randbelow(1 << 16)
    try:
        if not upstream.host:
            found = socket.getaddrinfo(upstream.endpoint.host, upstream.port, type=socket.SOCK_DGRAM)
            upstream.host = str(found[0][4][0])
        answer = _over_udp(upstream, query.pack()) if upstream.by_udp else asyncio.run(_over(upstream, query.pack()))
        if DNSRecord.parse(answer).header.id != query.header.id:
            raise AgentsError(f"cannot use upstream {upstream.endpoint}: it answers something else")
    except (OSError, EOFError, DNSError) as error:
        raise AgentsError(f"cannot reach upstream {upstream.endpoint}: {error or 'it does not answer'}") from None


def _over_udp(upstream: Upstream, query: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in upstream.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT_S)
        asking.connect((upstream.host, upstream.port))
        asking.send(query)
        return asking.recv(65535)


async def _over(upstream: Upstream, query: bytes) -> bytes:
    exchange = exchange_of(upstream)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await exchange.query(query, len(query))
    finally:
        await exchange.close()


def _model(settings: Settings) -> str:
    registry = bootstrap.registry_of(settings)
    model = registry.current()
    if registry.origin == "baseline" and registry.champion_path.exists():
        raise AgentsError(f"cannot use {registry.champion_path}; the shipped model is in use instead")
    return f"{model.model_id} ({registry.origin})"


def _limits(settings: Settings) -> str:
    factor = bootstrap.registry_of(settings).current().limit_factor
    unseen = bounds(factor)
    return (
        f"factor {factor:g} for {settings.alert_budget_per_week:g} investigations a week; unseen per client and domain:"
        f" {unseen['encoded_bytes_a_day']:.0f} encoded bytes a day, {unseen['bytes_in_words_a_day']:.0f} in words;"
        f" per client below all young domains: {unseen['bytes_below_young_domains_a_day']:.0f} bytes a day"
    )


def _bound(settings: Settings) -> str:
    found = network_bound(bootstrap.registry_of(settings).current().limit_factor)
    return (
        f"bytes a day in names and types without an incident (X): {found.out_client:,.0f} of one client,"
        f" {found.out:,.0f} of all, {found.out_more:,.0f} more for each further client at home;"
        f" explained, without a page (Y): {found.unpaged:,.0f} more, {found.unpaged_more:,.0f} for each client at home;"
        f" in, below a young domain (Z): {found.inward:,.0f}"
    )


def _schedule(settings: Settings) -> str:
    bootstrap.scheduler_of(settings)
    return f"{settings.retrain_schedule} ({settings.retrain_timezone})"


def _strict(settings: Settings) -> str:
    groups = bootstrap.strict_groups_of(settings).groups
    shown = (
        f"{one.network} may ask for {counted(len(one.listed.value()), 'domain')} ({one.listed.path})" for one in groups
    )
    return "; ".join(shown) or "no client is in a strict group (STRICT_CLIENTS)"


def _honeytokens(settings: Settings) -> str:
    path = bootstrap.honeytokens_path(settings)
    names = [token.name for token in load_honeytokens(path).tokens]
    if not names:
        return "there is none (dns-tunnel secrets add)"
    if mode := path.stat().st_mode & 0o077:
        raise AgentsError(f"cannot keep honeytokens: others may read {path} (mode {mode:03o}); chmod 600 it")
    return f"{counted(len(names), 'token')}: {', '.join(names)}"


def _own_zones(settings: Settings) -> str:
    """Those in force, and what may be one: a search domain of this machine, or what looks like one in incidents.

    An attacker can make a zone look like that, too; so only a person takes it.
    """
    held = [
        entry.suffix
        for entry in bootstrap.known_entries(settings)
        if entry.is_own and not entry.client and entry.holds(time.time())
    ]
    own = [*bootstrap.own_zones_of(settings), *held]
    lately: list[Incident] = []
    with suppress(StoreError), closing(bootstrap.store_of(settings)) as store:  # _database made it, or tells of it
        lately = store.incidents(since=time.time() - WEEK_S, source="", limit=INCIDENTS_MAX)
    found = dict.fromkeys(search_domains(), "a search domain of this machine")
    found |= {domain: "asked for like one" for domain in likely_own(lately) if domain not in found}
    asked = [f"{zone} ({why})" for zone, why in found.items() if _may_be_own(zone, own)]
    text = ", ".join(own) or "none (OWN_ZONES)"
    if not asked:
        return text
    line = command("allow add ZONE --factor own --reason TEXT --author YOU")
    return f"{text}; perhaps yours, too: {', '.join(asked[:ZONES_SHOWN])}; take one with {line}"


def _may_be_own(text: str, own: Sequence[str]) -> bool:
    if text == SCATTERED:
        return False
    try:
        zone = own_zone(text)
    except ValueError:
        return False
    return not any(f".{zone}".endswith(f".{one}") for one in own)


def _overload(settings: Settings) -> str:
    alive, state = detector_health(settings.state_dir)
    if not alive:
        return "no listener runs on this DATA_DIR"
    text = (
        f"level {state.load_level}; left out since the start: {counted(state.unexplained, 'explanation')},"
        f" {counted(state.sampled_out, 'NORMAL verdict')} not stored,"
        f" {counted(state.queue_dropped, 'query')} not judged"
    )
    if state.load_level:
        raise AgentsError(f"cannot keep up: {text}")
    return text


def _detectors(settings: Settings) -> str:
    alive, state = detector_health(settings.state_dir)
    if not alive:
        return "no listener runs on this DATA_DIR"
    if not state.detectors:
        return "one judges all clients"
    each = [
        f"{name}: {counted(one['scored'], 'query')}, {counted(one['flows'], 'flow')}, level {one['load_level']}"
        for name, one in state.detectors.items()
    ]
    if failing := [name for name, one in state.detectors.items() if not one["ok"]]:
        raise AgentsError(f"cannot hear of {', '.join(failing)}; {'; '.join(each)}")
    if unsaid := sum(one["unsaid"] for one in state.detectors.values()):
        raise AgentsError(f"cannot count all clients together: {counted(unsaid, 'message')} found no room")
    return "; ".join([*each, *_busy(state.busy)])


def _busy(busy: Mapping[str, float]) -> list[str]:
    """What is said of clients that ask a large part of all, and have one detector each."""
    return [
        f"{client} asked {part:.0%} of the last hour's queries, and one detector judges them: if it stands for many "
        f"clients, SHARED_CLIENTS={client} has all judge them"
        for client, part in busy.items()
    ]


def _spool(settings: Settings) -> str:
    folder, (alive, state) = settings.spool_folder, detector_health(settings.state_dir)
    sizes = {path: path.stat().st_size for path in folder.glob("*.*")} if folder.exists() else {}
    waiting, bad = (sum(path.suffix == suffix for path in sizes) for suffix in (".npz", ".bad"))
    used, lost = sum(sizes.values()) / (1 << 20), state.lost
    text = f"{waiting} batches wait, {bad} set aside, {used:.0f} of {settings.spool_max_mb} MB; {lost} verdicts lost"
    if alive and (waiting or lost):
        raise AgentsError(f"cannot store what is judged: {text}")
    if bad:
        raise AgentsError(f"cannot read all of {folder}: {text}; look at the files *.bad, and delete them")
    return text


def _clickhouse(settings: Settings, server: ClickHouse) -> str:
    rows, size = server.counted()
    text = f"ClickHouse at {server.place}: {counted(rows, 'query')}, {amount_text(size)}"
    alive, state = detector_health(settings.state_dir)
    said = state.hunting if alive else {}
    if said:
        text += f"; {said['waiting']} batches wait, {counted(said['lost'], 'query')} lost"
        if said["failures"] or said["lost"]:
            raise AgentsError(f"cannot send all queries: {said['error'] or 'its disk was full'} ({text})")
    return text


def _hosts(settings: Settings) -> str:
    found = cluster_models(settings.state_dir)
    if found is None:
        return "none on a bus, as far as a scheduler on this DATA_DIR knows"
    silent = found.silent(time.time())
    bad = found.behind | silent
    each = [
        f"{name} runs {one.model_id} since {utc(one.since)}, {counted(one.slots, 'slot')}"
        + (f", canary {one.candidate} since {utc(one.candidate_since)}" if one.candidate else "")
        + (f", silent since {utc(one.at)}" if name in silent else "")
        for name, one in sorted(found.hosts.items())
        if not bad or name in bad
    ]
    running = len(found.hosts) - len(found.behind)
    text = f"model {found.model_id or 'none'} is in force on {running} of {len(found.hosts)} hosts: {'; '.join(each)}"
    if bad:
        raise AgentsError(text)
    return text


def _stream(settings: Settings) -> str:
    options = bootstrap.bus_options_of(settings)
    if not options.servers:
        return "off (STREAM): queries are judged where they are heard"
    alive, state = detector_health(settings.state_dir)
    if not alive or not state.bus:
        return f"{options.shown}; neither listen nor detect runs on this DATA_DIR"
    if not state.bus["connected"]:
        raise AgentsError(f"cannot reach STREAM at {options.shown}: {state.bus['error']}")
    if state.bus["role"] == "publisher":
        kept = counted(state.bus["kept"], "message")
        return f"{options.shown}; {state.bus['sent']} sent, {kept} kept until a detector has saved what it made of them"
    held, lag = counted(state.bus["slots"], "slot"), counted(sum(state.bus["lag"].values()), "message")
    return f"{options.shown}; {held} of {options.slots}, {lag} behind"


def _hunt(settings: Settings) -> str:
    if (server := bootstrap.clickhouse_of(settings)) is not None:
        return _clickhouse(settings, server)
    days = bootstrap.hunt_options_of(settings).days
    with closing(bootstrap.store_of(settings)) as store:
        files = bootstrap.day_files_of(settings, store)
        found = files.days()
        size = sum(path.stat().st_size for path in found.values())
        text = f"{counted(len(found), 'day')} in files, {amount_text(size)}"
        if not days:
            return f"off (HUNT_DAYS); {text}, which nothing deletes" if found else "off (HUNT_DAYS)"
        today = int(time.time() // DAY_S)
        late = [day for day in files.missing(today - days) if day < today - 1]
    if late:
        shown = f"{counted(len(late), 'day')} from {day_text(late[0])} on"
        raise AgentsError(f"cannot hunt in {shown}: no scheduler has written files of them; {text}")
    return text


def _drill(settings: Settings) -> str:
    alive, state = detector_health(settings.state_dir)
    return drill_text(state.drill, time.time()) if alive else "no listener or collector runs on this DATA_DIR"


def _api(settings: Settings) -> str:
    if not read_heartbeat(settings.state_dir / PARTS["api"])["ok"]:
        return "no API runs on this DATA_DIR"
    found = request_health(settings)
    if not found:
        return f"it runs, and cannot be asked from here ({settings.api_host} port {settings.api_port})"
    ill = [name for name, one in found.get("components", {}).items() if not one.get("ok")]
    if ill:
        raise AgentsError(f"cannot call all well: /health says {found.get('status')} ({', '.join(ill)})")
    return f"it answers; /health says {found.get('status')}"


def _channels(settings: Settings) -> str:
    state = detector_health(settings.state_dir)[1]
    sender = read_heartbeat(settings.state_dir / PARTS["scheduler"])
    channels = {**state.channels, **(sender.get("channels", {}) if sender["ok"] else {})}
    if failing := [str(one["error"]) for one in channels.values() if one["failures"]]:
        raise AgentsError("; ".join(failing))
    if (late_s := oldest_s(settings.state_dir / OUTBOX)) >= UNSENT_S:
        raise AgentsError(f"cannot send alerts: no scheduler has taken them for {late_s:.0f} s")
    names = [spec.name for spec in CHANNELS if settings.of(spec)[spec.fields[0].name]]
    return f"{', '.join(names)} set up" if names else f"none is set up: nobody will be told ({CHANNEL_SETTINGS})"


def _channel(spec: Channel, settings: Settings) -> str:
    values = channel_values(settings, spec)
    if not values[spec.fields[0].name]:
        return f"not set up ({spec.switch})"
    spec.factory(values)
    return spec.probe(values)


def _exports(settings: Settings) -> str:
    """The ways out to other programs: made, but nothing is sent."""
    bootstrap.outputs_of(settings)
    set_up = [spec for spec in OUTPUTS if settings.of(spec)[spec.fields[0].name]]
    found = [f"{spec.name}: {spec.probe(channel_values(settings, spec))}" for spec in set_up]
    return "; ".join(found) or f"none is set up ({', '.join(spec.switch for spec in OUTPUTS)})"


def _kinds(specs: Sequence[Spec[Any]], settings: Settings) -> str:
    return "; ".join(f"{spec.name} ({spec.summary})" for spec in specs)


def _detector_type(settings: Settings) -> str:
    kind = bootstrap.model_type_of(settings)
    if kind.missing:
        raise AgentsError(f"cannot train MODEL_TYPE={kind.spec.name}: {', '.join(kind.missing)} is not installed")
    others = ", ".join(spec.name for spec in MODEL_TYPES if spec is not kind.spec)
    return f"{kind.spec.name} ({kind.spec.summary}); other types: {others}"


def _send(settings: Settings) -> str:
    results = asyncio.run(bootstrap.alert_manager_of(settings).broadcast(TEST_MESSAGE))
    if not results:
        raise AgentsError(f"cannot send: no channel is set up ({CHANNEL_SETTINGS})")
    text = "; ".join(f"sent to {one.channel}" if one.ok else one.error for one in results)
    if not all(one.ok for one in results):
        raise AgentsError(text)
    return text


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("settings", "", _settings),
    ("database", "", _database),
    ("port", "listener", _port),
    ("upstreams", "listener", _upstreams),
    ("strict", "listener", _strict),
    ("honeytokens", "listener", _honeytokens),
    ("enforcement", "listener", enforcement_text),
    ("overload", "listener", _overload),
    ("detectors", "listener", _detectors),
    ("spool", "listener", _spool),
    ("stream", "listener", _stream),
    ("hosts", "scheduler", _hosts),
    ("hunt", "scheduler", _hunt),
    ("drill", "listener", _drill),
    ("own zones", "listener", _own_zones),
    ("model", "listener", _model),
    ("limits", "listener", _limits),
    ("bound", "listener", _bound),
    ("schedule", "scheduler", _schedule),
    ("api", "api", _api),
    ("logs", "listener", intakes_text),
    ("intakes", "", partial(_kinds, INTAKES)),
    ("detector", "", _detector_type),
    ("channels", "", _channels),
    *((spec.name, "", partial(_channel, spec)) for spec in CHANNELS),
    ("exports", "", _exports),
)
"""Name, the running part whose settings count (else those of this shell), and the check."""
SEND = ("test message", "", _send)
