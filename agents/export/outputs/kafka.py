"""Kafka, by an idempotent producer: the extra `kafka` (confluent-kafka)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agents.alerting.delivery import RefusedError, RetryPolicy
from agents.core.errors import NotifyError
from agents.core.protocols import Field, library
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, format_field, readable
from agents.export.record import Record

SWITCH = "EXPORT_KAFKA"
SECURITIES = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")


class KafkaOutput:
    """Produces to one topic, keyed by the incident, so that records of one stay in order.

    config: of librdkafka. The producer tries again by itself within the policy's times.
    """

    name = "kafka"

    def __init__(self, config: Mapping[str, Any], topic: str, form: str, retry: RetryPolicy | None = None) -> None:
        self._kafka, self._topic, self._form = library("confluent_kafka", "kafka", f"setting {SWITCH}"), topic, form
        policy = retry or RetryPolicy()
        self._within_s = policy.timeout_s * policy.attempts
        settings = {"enable.idempotence": True, "client.id": "dns-tunnel"}
        self._config = {**settings, "message.timeout.ms": int(self._within_s * 1000), **config}

    @cached_property
    def _producer(self) -> Any:
        """It has threads, so it is made by the process that sends, not by one that forks. Raises NotifyError."""
        try:
            return self._kafka.Producer(self._config, logger=_SILENT)
        except self._kafka.KafkaException as error:
            raise NotifyError(f"cannot use setting {SWITCH}: {_text(error)}") from None

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        for line in BY_NAME[self._form].render(message).split("\n"):
            await asyncio.to_thread(self._produce, message, line.encode())

    def _produce(self, message: Record, value: bytes) -> None:
        failed: list[Any] = [None]
        key, headers = message.incident.incident_id.encode(), [("idempotency-key", message.key.encode())]

        def on_delivery(error: Any, _: object) -> None:
            failed[0] = error

        try:
            self._producer.produce(self._topic, value, key, headers=headers, on_delivery=on_delivery)
        except (self._kafka.KafkaException, BufferError) as error:
            raise NotifyError(f"cannot send to kafka: {_text(error)}") from None
        if self._producer.flush(self._within_s + 1.0):
            self._producer.purge()
            raise NotifyError(f"cannot send to kafka: no answer within {self._within_s:g} s")
        if failed[0] is not None:
            codes = self._kafka.KafkaError
            kind = RefusedError if failed[0].code() == codes.MSG_SIZE_TOO_LARGE else NotifyError
            raise kind(f"cannot send to kafka: {failed[0].str()}")


def _text(error: BaseException) -> str:
    found = error.args[0] if error.args else ""
    return str(found.str() if hasattr(found, "str") else found or type(error).__name__)


class _Silent:
    """The library writes to standard error otherwise, with addresses."""

    def log(self, *_: object, **__: object) -> None:
        """Say nothing."""


_SILENT: Any = _Silent()


def security_named(name: str) -> None:
    """A check of a setting. Raises ValueError."""
    if name not in SECURITIES:
        raise ValueError(f"it must be one of {', '.join(SECURITIES)}")


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> KafkaOutput:
    config = {"bootstrap.servers": values["export_kafka"], "security.protocol": values["export_kafka_security"]}
    if values["export_kafka_ca"]:
        config["ssl.ca.location"] = values["export_kafka_ca"]
    if values["export_kafka_user"]:
        config |= {"sasl.mechanism": values["export_kafka_mechanism"], "sasl.username": values["export_kafka_user"]}
        config["sasl.password"] = str(values["export_kafka_password"])
    return KafkaOutput(config, values["export_kafka_topic"], values["export_kafka_format"], retry)


SPEC = Output(
    name="kafka",
    summary="Kafka (extra kafka)",
    fields=(
        Field("export_kafka", str, "", "brokers, as HOST:9092, comma-separated"),
        Field("export_kafka_topic", str, "dns-tunnel-incidents", "topic"),
        format_field("kafka", "json"),
        Field("export_kafka_security", str, "plaintext", f"one of {', '.join(SECURITIES)}", security_named),
        Field("export_kafka_ca", str, "", "file of certificates to trust instead of the system's", readable),
        Field("export_kafka_mechanism", str, "SCRAM-SHA-512", "of SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        Field("export_kafka_user", str, "", "user of SASL"),
        Field("export_kafka_password", str, "", "its password", secret=True),
    ),
    factory=_made,
)
