"""Elasticsearch and OpenSearch: the bulk API, with an id for each record, so that one that comes twice is kept once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError
from pydantic import Field as PydanticField

from agents.alerting.delivery import RefusedError, RetryPolicy, TryAgainError, post, webhook_url
from agents.core.errors import NotifyError
from agents.core.protocols import Field
from agents.core.text import web_address
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, readable, trusting
from agents.export.record import Record


class _Result(BaseModel):
    status: int


class _Item(BaseModel):
    create: _Result


class _Answer(BaseModel):
    """The part of the bulk API's answer that is looked at."""

    items: list[_Item] = PydanticField(min_length=1)


class ElasticsearchOutput:
    """Writes ECS documents into one index or data stream. url may hold a user and a password: it is a secret."""

    name = "elasticsearch"

    def __init__(self, url: str, index: str, api_key: str = "", ca: str = "", retry: RetryPolicy | None = None) -> None:
        self._url, self._index = url.rstrip("/") + "/_bulk", index
        self._headers = {"Content-Type": "application/x-ndjson"}
        if api_key:
            self._headers["Authorization"] = f"ApiKey {api_key}"
        self._retry, self._tls = retry or RetryPolicy(), trusting(ca) if url.startswith("https://") else True

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        action = json.dumps({"create": {"_index": self._index, "_id": message.key}})
        body = f"{action}\n{BY_NAME['ecs'].render(message)}\n".encode()
        await post(self.name, self._url, body, self._headers, self._retry, accept=_accept, tls=self._tls)


def _accept(answer: httpx.Response) -> None:
    """The request may succeed where its document does not."""
    try:
        status = _Answer.model_validate_json(answer.content).items[0].create.status
    except ValidationError:
        raise NotifyError("cannot send to elasticsearch: its answer is none of the bulk API") from None
    if status == 429 or status >= 500:
        raise TryAgainError(f"it answered {status} for the document")
    if status >= 400 and status != 409:  # 409: it is there already
        raise RefusedError(f"cannot send to elasticsearch: it answered {status} for the document")


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> ElasticsearchOutput:
    url, index = webhook_url(values, "export_elasticsearch_url"), values["export_elasticsearch_index"]
    key, ca = str(values["export_elasticsearch_api_key"]), values["export_elasticsearch_ca"]
    return ElasticsearchOutput(url, index, key, ca, retry)


SPEC = Output(
    name="elasticsearch",
    summary="Elasticsearch or OpenSearch, by the bulk API, as ECS",
    fields=(
        Field("export_elasticsearch_url", str, "", "https://[USER:PASSWORD@]HOST:9200", web_address, secret=True),
        Field("export_elasticsearch_index", str, "dns-tunnel-incidents", "index or data stream"),
        Field("export_elasticsearch_api_key", str, "", "API key, instead of a user", secret=True),
        Field("export_elasticsearch_ca", str, "", "file of certificates to trust instead of the system's", readable),
    ),
    factory=_made,
)
