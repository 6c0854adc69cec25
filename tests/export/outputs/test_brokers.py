"""Ways out by libraries of extras: Kafka against librdkafka's mock brokers, NATS against a real server, Apprise."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agents.alerting.delivery import RefusedError, RetryPolicy
from agents.alerting.grouping import Event
from agents.core.errors import NotifyError, SettingsError
from agents.export.outputs import OUTPUTS, apprise, kafka, nats
from agents.export.outputs.apprise import AppriseOutput
from agents.export.outputs.kafka import KafkaOutput
from agents.export.outputs.nats import NatsOutput
from agents.export.record import Record
from agents.runtime.bootstrap import load_settings
from tests.support.incidents import incident
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port, process

pytestmark = pytest.mark.integration
FAST = RetryPolicy(attempts=2, base_s=0.01, timeout_s=patient(3.0))
RECORD = Record(incident(), Event.NEW, 1_763_604_900.0)


def send(output: Any, record: Record = RECORD) -> None:
    asyncio.run(output.send(record))


MOCK = {"test.mock.num.brokers": 1}


def produced(output: KafkaOutput, count: int) -> list[Any]:
    """Messages of the topic in the producer's mock cluster."""
    confluent = pytest.importorskip("confluent_kafka")
    brokers = output._producer.list_topics(timeout=patient(10)).brokers.values()
    servers = ",".join(f"{one.host}:{one.port}" for one in brokers)
    consumer = confluent.Consumer({"bootstrap.servers": servers, "group.id": "t", "auto.offset.reset": "earliest"})
    consumer.subscribe(["incidents"])
    found: list[Any] = []
    end = time.monotonic() + patient(30)
    while len(found) < count and time.monotonic() < end:
        if (one := consumer.poll(0.2)) is not None and not one.error():
            found.append(one)
    consumer.close()
    return found


def test_kafka_has_each_record_under_its_incident() -> None:
    pytest.importorskip("confluent_kafka")
    output = KafkaOutput(MOCK, "incidents", "json", FAST)
    send(output)
    send(output, Record(incident(), Event.ENDED, 1_763_604_990.0))
    found = produced(output, 2)
    assert [json.loads(one.value())["event"] for one in found] == ["new", "ended"]
    assert {one.key().decode() for one in found} == {RECORD.incident.incident_id}
    assert dict(found[0].headers())["idempotency-key"] == RECORD.key.encode()


def test_kafka_that_is_away_or_refuses_is_said_in_one_line() -> None:
    pytest.importorskip("confluent_kafka")
    away = KafkaOutput(
        {"bootstrap.servers": "127.0.0.1:9"}, "incidents", "json", RetryPolicy(attempts=1, timeout_s=1.0)
    )
    with pytest.raises(NotifyError, match="cannot send to kafka: ") as caught:
        send(away)
    assert "\n" not in str(caught.value) and not isinstance(caught.value, RefusedError)
    with pytest.raises(NotifyError, match="cannot use setting EXPORT_KAFKA"):
        wrong = {"bootstrap.servers": "x", "sasl.mechanism": "NONSENSE", "security.protocol": "sasl_ssl"}
        send(KafkaOutput(wrong, "t", "json"))


@contextmanager
def nats_server(folder: Path, *arguments: str) -> Iterator[str]:
    program = shutil.which("nats-server")
    if program is None:
        pytest.skip("nats-server is not installed")
    port = free_port()
    command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "js"), *arguments]
    with process(command, folder / "nats.log"):
        wait_until(lambda: b"Server is ready" in (folder / "nats.log").read_bytes(), 20)
        yield f"nats://127.0.0.1:{port}"


def test_nats_has_a_record_and_a_stream_keeps_it_once(tmp_path: Path) -> None:
    library = pytest.importorskip("nats")
    with nats_server(tmp_path) as url:

        async def talk() -> tuple[list[bytes], int]:
            client = await library.connect(url)
            heard = await client.subscribe("incidents.>")
            await client.jetstream().add_stream(name="kept", subjects=["kept.>"])
            await NatsOutput(url, "incidents.new", "ecs", False, retry=FAST).send(RECORD)
            await client.flush()
            got = [(await heard.next_msg(timeout=patient(5))).data]
            for _ in range(2):  # the second as after a restart
                await NatsOutput(url, "kept.new", "ecs", True, retry=FAST).send(RECORD)
            held = (await client.jetstream().stream_info("kept")).state.messages
            await client.close()
            return got, held

        (got,), held = asyncio.run(talk())
        assert json.loads(got)["dns"]["question"]["registered_domain"] == "evil.com" and held == 1
        with pytest.raises(NotifyError, match=r"cannot send to nats: .*tried 2 times"):
            send(NatsOutput(url, "no.stream", "json", True, retry=FAST))


@pytest.mark.slow
def test_nats_asks_for_a_token_and_is_away_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("nats")
    with nats_server(tmp_path, "--auth", "s3cret") as url:
        send(NatsOutput(url, "x", "json", False, token="s3cret", retry=FAST))
        with pytest.raises(NotifyError, match="cannot send to nats: ") as caught:
            send(NatsOutput(url, "x", "json", False, token="wrong-token", retry=FAST))
        assert "wrong-token" not in str(caught.value)
    with pytest.raises(NotifyError, match="cannot send to nats: "):
        send(NatsOutput("nats://127.0.0.1:9", "x", "json", False, retry=FAST))


@contextmanager
def http_server(*codes: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(left.pop(0) if left else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_apprise_sends_a_harmless_sentence_and_to_nobody_twice() -> None:
    pytest.importorskip("apprise")
    hostile = Record(incident(reasons=("see http://evil.com/x @all",)), Event.NEW, 1_763_604_900.0)
    with http_server() as (port, got), http_server(500) as (second, more):
        send(AppriseOutput(f"json://127.0.0.1:{port}/?a=1 json://127.0.0.1:{second}/", FAST), hostile)
    assert (len(got), len(more)) == (1, 2), "the one that took it is not asked again"
    assert got[0]["title"] == "DNS tunnel (iodine): 192.0.2.7 below evil[.]com" and got[0]["type"] == "warning"
    assert got[0]["message"] == "HIGH: see http[:]//evil[.]com/x [@]all"


def test_apprise_that_is_away_shows_no_address() -> None:
    pytest.importorskip("apprise")
    with pytest.raises(NotifyError, match="cannot send to apprise: 1 of 1 services did not take it, tried 2") as caught:
        send(AppriseOutput("json://user:s3cret@127.0.0.1:9/", FAST))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingsError, match="address 2 is none that Apprise knows") as refused:
        AppriseOutput("json://127.0.0.1/ nonsense://s3cret")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("spec", [kafka.SPEC, nats.SPEC, apprise.SPEC], ids=lambda spec: spec.name)
def test_without_the_extra_one_line_says_so(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert spec in OUTPUTS
    for module in ("confluent_kafka", "nats", "nats.errors", "apprise"):
        monkeypatch.setitem(sys.modules, module, None)
    values = load_settings(export_kafka="h:9092", export_nats="nats://h", export_apprise="json://h").of(spec)
    with pytest.raises(
        SettingsError, match=rf"cannot use setting {spec.switch}: .* is not installed .*requirements-{spec.name}\.txt"
    ):
        spec.factory(values, None)


@pytest.mark.parametrize("changed", [{"export_nats": "http://x"}, {"export_kafka_security": "tls"}])
def test_a_setting_that_cannot_be_used_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="cannot use setting EXPORT_"):
        load_settings(**changed)
