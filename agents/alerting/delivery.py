"""Sending with retries: what the channels share. Nothing here ever shows an address or a password."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from agents.core.errors import NotifyError, SettingsError
from agents.core.protocols import Notifier, Spec
from agents.core.types import Message

# httpx logs whole addresses at INFO, and a webhook's address is a secret.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Channel(Spec[Notifier]):
    """A kind of channel. factory: (values of fields, a RetryPolicy or None) -> a Notifier; or it raises SettingsError.

    The channel is set up where its first field is not empty. probe: what `doctor` says of one that is, without sending
    anything; it raises AgentsError where the channel cannot work.
    """

    probe: Callable[[Mapping[str, Any]], str] = lambda values: "set up"

    @property
    def switch(self) -> str:
        """The setting that sets it up."""
        return self.fields[0].name.upper()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently one message is tried; waits double from `base_s` up to `wait_max_s`."""

    attempts: int = 4
    base_s: float = 1.0
    wait_max_s: float = 60.0
    timeout_s: float = 10.0


PLAIN_HTTP = "webhooks_plain_http"
"""The common setting that lets webhooks be http:// to other machines."""
MESSAGE_REFUSED = {400, 413, 422}
"""Answers that are about the message (RFC 9110 section 15.5); others, as 404 of a webhook that was deleted, are about
the channel."""


class RefusedError(NotifyError):
    """The channel can be reached and refuses this message; trying it again would not help."""


class TryAgainError(Exception):
    """An attempt failed in a way that may pass; `wait_s` is what the other side asked for, if it did."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


async def retried(channel: str, policy: RetryPolicy, attempt: Callable[[], Awaitable[None]]) -> None:
    """Run `attempt` until it passes. Raises NotifyError when it gives up."""
    for number in range(policy.attempts):
        try:
            return await attempt()
        except TryAgainError as error:
            reason, wait = str(error), error.wait_s
        if number + 1 < policy.attempts:
            backoff = policy.base_s * 2**number
            await asyncio.sleep(min(backoff if wait is None else wait, policy.wait_max_s))
    raise NotifyError(f"cannot send to {channel}: {reason}, tried {policy.attempts} times")


async def post_json(channel: str, url: str, payload: dict[str, Any], policy: RetryPolicy) -> None:
    """POST `payload` as JSON, as `post` does."""
    await post(channel, url, json.dumps(payload).encode(), {"Content-Type": "application/json"}, policy)


async def post(
    channel: str,
    url: str,
    content: bytes,
    headers: Mapping[str, str],
    policy: RetryPolicy,
    *,
    accept: Callable[[httpx.Response], None] = lambda answer: None,
    tls: ssl.SSLContext | bool = True,
) -> None:
    """POST `content`; 2xx is success; tries again on 429, 5xx and lost connections. Raises NotifyError.

    accept: looks at an answer of success, and raises TryAgainError or NotifyError. tls: whom to trust.
    """
    async with httpx.AsyncClient(timeout=policy.timeout_s, follow_redirects=False, verify=tls) as client:

        async def attempt() -> None:
            try:
                async with asyncio.timeout(policy.timeout_s):  # httpx bounds each read, not their sum
                    answer = await client.post(url, content=content, headers=dict(headers))
            except TimeoutError:
                raise TryAgainError(f"no answer within {policy.timeout_s:g} s") from None
            except (httpx.InvalidURL, httpx.UnsupportedProtocol):
                raise NotifyError(f"cannot send to {channel}: its webhook is no valid address") from None
            except httpx.TransportError as error:
                raise TryAgainError(f"no connection ({type(error).__name__})") from None
            _judge(channel, answer)
            accept(answer)

        await retried(channel, policy, attempt)


def _judge(channel: str, answer: httpx.Response) -> None:
    if answer.status_code == 429 or answer.status_code >= 500:
        raise TryAgainError(f"it answered {answer.status_code}", _wait(answer.headers.get("Retry-After", "")))
    if not answer.is_success:
        error = RefusedError if answer.status_code in MESSAGE_REFUSED else NotifyError
        raise error(f"cannot send to {channel}: it answered {answer.status_code}")


def _wait(text: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3); its date form is answered with back-off."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def webhook_url(values: Mapping[str, Any], name: str) -> str:
    """The address of a webhook, which is a secret. Raises SettingsError where it would travel in the clear."""
    url = str(values[name])
    plain = url.startswith("http://") and not is_loopback(httpx.URL(url).host)
    if plain and not values.get(PLAIN_HTTP, False):
        raise SettingsError(f"cannot use setting {name.upper()}: http:// only to loopback ({PLAIN_HTTP.upper()}=on)")
    return url


def fitted(message: Message, build: Callable[[Message], dict[str, Any]], size: int) -> dict[str, Any]:
    """What `build` makes of the message, with facts left out from the end until `size` bytes suffice."""
    request = build(message)
    while len(json.dumps(request).encode()) > size and message.facts:
        message = replace(message, facts=message.facts[: len(message.facts) // 2])
        request = build(message)
    return request


def clip(text: str, size: int) -> str:
    """At most `size` characters; what is cut shows."""
    return text if len(text) <= size else text[: size - 1] + "…"
