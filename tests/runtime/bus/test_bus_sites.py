"""Sites on a bus: credentials that are limited to a site, a leaf node, TLS, and the hub away for a while."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from itertools import pairwise
from pathlib import Path

import nats
import numpy as np
import pytest
from nats.errors import Error

from agents.core.errors import SettingsError
from agents.runtime import bootstrap
from agents.stream.answer_key import answer_key_of, packed_key
from agents.stream.bus import options as bus_options
from agents.stream.bus.jetstream import ANSWERS_KEY, KEYS, LABEL, SITE_API, Bus, BusError, FullError, subject_of
from agents.stream.bus.link import BusLink
from agents.stream.bus.messages import packed_records
from agents.stream.bus.options import KEEP_LEAST, BusOptions
from agents.stream.bus.protocol import MessageLabel, new_run
from agents.stream.record import RECORD, client_bytes, packed_record
from agents.stream.slots import slot_of_client
from tests.runtime.bus.test_bus_damage import CLIENT, body
from tests.runtime.bus.test_bus_live import plain_names, stored_once
from tests.runtime.several.test_several_live import ask, names_of
from tests.support.bus import SLOTS, Cluster, NatsServer, cluster, sent_by
from tests.support.commands import ROOT
from tests.support.listening import wait_until
from tests.support.running import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
PASSWORD = "for-the-test"


def accounts(*sites: str) -> str:
    """The accounts of docs/cluster.md, for these sites."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    (shown,) = [part.partition("```")[0] for part in text.split("```text\n")[1:] if part.startswith("accounts")]
    head, exports, middle, imports, end = _parts(shown.replace("…", PASSWORD))
    each = [(exports.replace("berlin", site).replace("BERLIN", site.upper()), site) for site in sites]
    own = [imports.replace("berlin", site).replace("BERLIN", site.upper()) for site in sites]
    return "".join([head, *(text for text, _ in each), middle, *own, end])


def _parts(shown: str) -> list[str]:
    """What is written once, and what once for each site: exports to it, and its account."""
    lines = shown.splitlines(keepends=True)
    begin = next(at for at, line in enumerate(lines) if "BERLIN: {" in line)
    cuts = [0, 2, begin - 1, begin, len(lines) - 1, len(lines)]
    return ["".join(lines[a:b]) for a, b in pairwise(cuts)]


def hub(folder: Path, leaf_port: int, more: str = "") -> NatsServer:
    """A server that keeps the streams; everybody has a user there."""
    leafs = f"leafnodes {{ listen: '127.0.0.1:{leaf_port}' }}"
    kept = f"jetstream {{ store_dir: '{folder / 'js'}' }}"
    return NatsServer(folder, config=f"{kept}\n{leafs}\n{more}\n{accounts('berlin', 'rome')}\n")


def leaf(folder: Path, leaf_port: int, user: str) -> NatsServer:
    """A site's own server, which keeps nothing."""
    remote = f"nats-leaf://{user}:{PASSWORD}@127.0.0.1:{leaf_port}"
    return NatsServer(folder, config=f"leafnodes {{ remotes: [{{ url: '{remote}' }}] }}\n")


def as_user(server: NatsServer, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD}@")


def options_of(url: str, **settings: object) -> BusOptions:
    return bus_options.SPEC.factory(bus_options.SPEC.values({"stream": url, "stream_slots": SLOTS, **settings}))


def made(options: BusOptions) -> None:
    """Streams and keys, as a host of the main site makes them."""

    async def make() -> None:
        bus = Bus(options)
        await bus.open("main")
        await bus.put_if("secret", b"of detectors", 0)
        await bus.put_if(ANSWERS_KEY, packed_key((3, 4)), 0)
        await bus.close()

    asyncio.run(make())


def test_a_site_writes_to_its_own_subjects_alone_and_reads_no_secrets(tmp_path: Path) -> None:
    server = hub(tmp_path, free_port())
    made(options_of(as_user(server, "main")))

    async def site() -> None:
        bus = Bus(options_of(as_user(server, "berlin"), stream_site="berlin"))
        await bus.open("publisher")
        label = MessageLabel(new_run("berlin"), 1, 1).text()
        assert await bus.publish(subject_of(1), b"x", label, "1", "berlin") == 1
        with pytest.raises(BusError):
            await bus.publish(subject_of(1), b"x", label, "2", "rome")
        assert (await bus.look("slots")).data == str(SLOTS).encode()
        assert answer_key_of((await bus.look(ANSWERS_KEY)).data) == (3, 4)
        for key in ("secret", "slots"):
            with pytest.raises(BusError):
                await bus.get(key)
        with pytest.raises(BusError):
            await bus.look("secret")
        await bus.close()
        await changing()

    async def changing() -> None:
        """Neither by the way that others go nor by its own can it change a key."""
        connection = await nats.connect(as_user(server, "berlin"))
        for prefix in ({}, {"prefix": SITE_API}):
            with pytest.raises(Error):
                await connection.jetstream(**prefix).publish(f"$KV.{KEYS}.slots", b"2")
        await connection.close()

    async def spying() -> list[bytes]:
        """What a site hears that subscribes to whatever it may."""
        spy = await nats.connect(as_user(server, "rome"), error_cb=_nothing)
        heard: list[bytes] = []

        async def hear(message: object) -> None:
            heard.append(getattr(message, "data", b""))

        for subject in (">", "Q.>", "_INBOX.>", f"$KV.{KEYS}.>"):
            await spy.subscribe(subject, cb=hear)
        await spy.flush()
        await site()
        await spy.close()
        return heard

    try:
        assert asyncio.run(spying()) == []
    finally:
        server.kill()


async def _nothing(error: Exception) -> None:
    """Refusals are what this is about."""


def test_a_site_makes_nothing_and_says_what_it_waits_for(tmp_path: Path) -> None:
    server = hub(tmp_path, free_port())

    def opened(url: str, slots: int = SLOTS) -> None:
        asyncio.run(Bus(options_of(url, stream_site="berlin", stream_slots=slots)).open("publisher", 0.0))

    site = as_user(server, "berlin")
    try:
        with pytest.raises(BusError, match="a host of the main site makes them"):
            opened(site)
        with pytest.raises(BusError, match="give it no account"):
            opened(as_user(server, "main"))
        with pytest.raises(SettingsError, match="STREAM_SITE"):
            BusLink(options_of(site, stream_site="berlin"), "d")
        made(options_of(as_user(server, "main")))
        opened(site)
        with pytest.raises(SettingsError, match=f"this bus has {SLOTS}"):
            opened(site, SLOTS // 2)
    finally:
        server.kill()


@pytest.mark.parametrize("site", ["Berlin", "a.b", "a b", "*", ">", "main", "x" * 33, "ö"])
def test_a_name_that_is_no_sites_is_refused(site: str) -> None:
    with pytest.raises(SettingsError, match="STREAM_SITE"):
        bootstrap.load_settings(stream_site=site)


@pytest.mark.slow
def test_sites_behind_leaf_nodes_are_judged_as_one_network_and_a_cut_one_catches_up(tmp_path: Path) -> None:
    port = free_port()
    with cluster(tmp_path) as bus:
        _replace_server(bus, hub(tmp_path / "hub", port))
        bus.settings["STREAM"] = as_user(bus.server, "main")
        judging = bus.detecting("d1")
        judging.wait_ready()
        wait_until(lambda: len(judging.slots) == SLOTS, 60)
        sites = {}
        for site in ("berlin", "rome"):
            near = leaf(tmp_path / f"leaf-{site}", port, site)
            bus.servers.append(near)
            sites[site] = bus.listening(site, STREAM=near.url, STREAM_SITE=site)
            sites[site].wait_ready()
        berlin, rome = sites["berlin"], sites["rome"]
        keys = [host.folder / "data" / "answer_key.json" for host in sites.values()]
        wait_until(lambda: keys[0].read_bytes() == keys[1].read_bytes(), 30)
        asked = sum(ask(host.port, CLIENT_AT[0], plain_names(name, CLIENT_AT[0], 5)) for name, host in sites.items())
        tunnel = names_of(1, 16, "roams.test", 10)  # half a channel at each site: none of them would say anything of it
        asked += ask(berlin.port, CLIENT_AT[1], tunnel[:8]) + ask(rome.port, CLIENT_AT[1], tunnel[8:])
        stored_once(bus, asked)
        wait_until(lambda: bus.rows("SELECT client, domain FROM incidents") == [(CLIENT_AT[1], "roams.test")], 30)

        cut = bus.servers[-1]
        cut.kill()
        asked += ask(rome.port, CLIENT_AT[2], plain_names("rome", CLIENT_AT[2], 20))
        asked += ask(berlin.port, CLIENT_AT[2], plain_names("berlin", CLIENT_AT[2], 20))
        wait_until(lambda: bus.stored() == asked - 20, 60)
        assert sent_by(rome)["kept"] > 0
        cut.start()
        stored_once(bus, asked)
        wait_until(lambda: sum(sent_by(host)["kept"] for host in sites.values()) == 0, 30)
        assert [berlin.stop(), rome.stop(), judging.stop()] == [0, 0, 0]


async def _flooding(options: BusOptions, slot: int, stop: threading.Event, refused: list[int]) -> None:
    """A site that sends the longest messages as fast as it can, and again at once what finds no room."""
    bus, run, number = Bus(options), new_run("rome"), 0
    await bus.open("flood")
    wires = [b"\x3f" + b"%063d" % at + b"\x04test" for at in range(200)]
    of = time.time(), client_bytes(CLIENT)
    rows = [packed_record(*of, wire, 1, 99, 0, 1, 60, 60, 1.0, (1,)) for wire in wires]
    data = packed_records(np.frombuffer(b"".join(rows), RECORD))
    while not stop.is_set():
        number += 1
        label = MessageLabel(run, number, number).text()
        while not stop.is_set():
            try:
                await bus.publish(subject_of(slot), data, label, label, "rome")
            except FullError:
                refused.append(number)
                await asyncio.sleep(0.01)
            else:
                break
    await bus.close()


@pytest.mark.slow
def test_a_site_that_floods_has_a_share_and_pushes_out_nobody(tmp_path: Path) -> None:
    """Also where nobody judges yet: what others send finds room, and what they have sent stays."""
    slot, refused, stop = slot_of_client(CLIENT) % SLOTS, list[int](), threading.Event()
    with cluster(tmp_path) as bus:
        _replace_server(bus, hub(tmp_path / "hub", free_port()))
        bus.settings |= {"STREAM": as_user(bus.server, "main"), "STREAM_KEEP_MB": str(SLOTS + 1)}
        made(options_of(bus.settings["STREAM"], stream_keep_mb=SLOTS + 1))
        rome = options_of(as_user(bus.server, "rome"), stream_site="rome")
        flood = threading.Thread(target=lambda: asyncio.run(_flooding(rome, slot, stop, refused)))
        flood.start()
        try:
            wait_until(lambda: len(refused) > 3, 30)
            assert set(refused) == {KEEP_LEAST + 1}
            hosts = [bus.listening("m"), bus.listening("b", STREAM=as_user(bus.server, "berlin"), STREAM_SITE="berlin")]
            for host in hosts:
                host.wait_ready()
            clients = [one for one in (f"127.0.1.{at}" for at in range(1, 99)) if slot_of_client(one) % SLOTS == slot]
            asked = sum(ask(host.port, one, plain_names(host.folder.name, one, 9)) for host in hosts for one in clients)
            wait_until(lambda: all(sent_by(host)["sent"] > 0 == sent_by(host)["unsent"] for host in hosts), 30)
            judging = bus.detecting("d1")
            judging.wait_ready()
            own = "SELECT count(*) FROM queries WHERE client LIKE '127.0.1.%'"
            wait_until(lambda: bus.stored() > 0 and bus.rows(own) == [(asked,)], 90)
            wait_until(lambda: sum(sent_by(host)["kept"] for host in hosts) == 0, 60)
            wait_until(lambda: refused[-1] > 2 * KEEP_LEAST, 60)  # and it is judged as well, share after share
            assert [sent_by(host)["resent"] for host in hosts] == [0, 0]
        finally:
            stop.set()
            flood.join()


CLIENT_AT = [f"127.0.0.{number}" for number in range(10, 13)]


def _replace_server(bus: Cluster, server: NatsServer) -> None:
    bus.server.kill()
    bus.servers[0] = bus.server = server


@pytest.mark.slow
def test_what_a_site_sends_as_another_or_out_of_the_future_harms_nobody(tmp_path: Path) -> None:
    slot = slot_of_client(CLIENT) % SLOTS
    with cluster(tmp_path) as bus:
        judging = bus.detecting("d1")
        judging.wait_ready()
        wait_until(lambda: len(judging.slots) == SLOTS, 60)

        async def send() -> None:
            connection = await nats.connect(bus.server.url)
            stream, rome = connection.jetstream(), new_run("rome")
            for subject, run, name in (
                ("berlin", rome, b"forged"),
                ("rome", rome, b"true"),
                ("rome", "../../x", b"path"),
            ):
                label = {LABEL: MessageLabel(run, 1, 1).text()}
                await stream.publish(f"{subject_of(slot)}.{subject}", body(name), headers=label)
            await connection.close()

        asyncio.run(send())
        wait_until(lambda: judging.log.read_text().count("message_not_read") == 2 and bus.stored() > 0, 60)
        assert bus.rows("SELECT qname FROM queries") == [("true.test",)]
        assert judging.stop() == 0


def test_tls_is_spoken_where_the_setting_says_so(tmp_path: Path) -> None:
    made_key = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(made_key.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = f"tls {{ cert_file: '{tmp_path / 'cert.pem'}', key_file: '{tmp_path / 'key.pem'}' }}"
    server = hub(tmp_path, free_port(), tls)
    url = as_user(server, "main").replace("nats://", "tls://").replace("127.0.0.1", "localhost")
    try:
        made(options_of(url, stream_ca=str(tmp_path / "cert.pem")))
        for options in (
            options_of(url),
            options_of(url.replace(PASSWORD, "wrong"), stream_ca=str(tmp_path / "cert.pem")),
        ):
            with pytest.raises(BusError, match="cannot use STREAM at localhost"):
                asyncio.run(Bus(options).open("x", 0.0))
    except Error as error:
        pytest.fail(f"the client's own error came through: {error!r}")
    finally:
        server.kill()
