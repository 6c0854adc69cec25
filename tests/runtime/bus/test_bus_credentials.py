"""Credentials of NATS: the seed of an nkey, and .creds with a JWT, at real servers that let nobody else in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agents.core.errors import SettingsError
from agents.runtime import bootstrap
from agents.runtime.bootstrap.bus import bus_options_of
from agents.stream.bus.jetstream import Bus, BusError
from tests.support.bus import NatsServer
from tests.support.commands import Inside, is_one_line

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
nkeys: Any = pytest.importorskip("nkeys")


class Pair(NamedTuple):
    """A key of NATS as its seed, as the public one, and what signs with it."""

    seed: str
    public: str
    signs: Any


def pair(kind: int) -> Pair:
    seed = nkeys.encode_seed(secrets.token_bytes(32), kind)
    found = nkeys.from_seed(bytearray(seed))
    return Pair(bytes(seed).decode(), found.public_key.decode(), found)


def user() -> Pair:
    return pair(nkeys.PREFIX_BYTE_USER)


def _part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(by: Pair, of: Pair, kind: str, claims: dict[str, Any]) -> str:
    """A JWT as `nsc` makes one (version 2)."""
    jti = base64.b32encode(hashlib.sha256(secrets.token_bytes(8)).digest()).decode().rstrip("=")
    body: dict[str, Any] = {"jti": jti, "iat": int(time.time()), "iss": by.public, "sub": of.public, "name": kind}
    body["nats"] = claims | {"type": kind, "version": 2}
    text = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(body)}"
    return f"{text}.{_part(bytes(by.signs.sign(text.encode())))}"


LIMITS = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
STORES = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


def creds(jwt: str, seed: str) -> str:
    """A file .creds as `nsc` writes it."""
    return f"""-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


def opened(url: str, file: Path) -> None:
    """Streams and keys are made there."""
    settings = bootstrap.load_settings(stream=url, stream_creds=str(file), stream_slots=2)

    async def work() -> None:
        bus = Bus(bus_options_of(settings))
        await bus.open("main", 5.0)
        assert (await bus.get("slots")).data == b"2"
        await bus.close()

    asyncio.run(work())


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_seed_of_an_nkey_opens_the_bus_and_another_does_not(tmp_path: Path) -> None:
    known, stranger = user(), user()
    kept = f"jetstream {{ store_dir: '{tmp_path / 'js'}' }}"
    server = NatsServer(tmp_path / "n", config=f"{kept}\nauthorization {{ users: [{{nkey: {known.public}}}] }}\n")
    try:
        opened(server.url, written(tmp_path / "seed", known.seed + "\n"))
        with pytest.raises(BusError, match="cannot use STREAM at 127"):
            opened(server.url, written(tmp_path / "other", stranger.seed))
    finally:
        server.kill()


def test_creds_of_a_user_open_the_bus_and_those_of_another_account_do_not(tmp_path: Path) -> None:
    operator, account = pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system, stranger, one = pair(nkeys.PREFIX_BYTE_ACCOUNT), pair(nkeys.PREFIX_BYTE_ACCOUNT), user()
    preload = {
        account.public: token(operator, account, "account", {"limits": LIMITS | STORES | {"wildcards": True}}),
        system.public: token(operator, system, "account", {"limits": LIMITS | {"wildcards": True}}),
    }
    lines = [
        f"jetstream {{ store_dir: '{tmp_path / 'js'}' }}",
        f"operator: {token(operator, operator, 'operator', {})}",
        f"system_account: {system.public}",
        "resolver: MEMORY",
        f"resolver_preload: {{ {', '.join(f'{name}: {jwt}' for name, jwt in preload.items())} }}",
    ]
    claims = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    server = NatsServer(tmp_path / "n", config="\n".join(lines))
    try:
        opened(server.url, written(tmp_path / "a.creds", creds(token(account, one, "user", claims), one.seed)))
        with pytest.raises(BusError, match="cannot use STREAM at 127"):
            opened(server.url, written(tmp_path / "b.creds", creds(token(stranger, one, "user", claims), one.seed)))
    finally:
        server.kill()


@pytest.mark.parametrize("text", ["", "localhost", "SU" + "A" * 56, creds("a.b.c", "SUX"), creds("", "x")[:40]])
def test_a_file_without_credentials_is_refused_in_one_line(tmp_path: Path, inside: Inside, text: str) -> None:
    file = written(tmp_path / "file", text)
    with pytest.raises(SettingsError, match="STREAM_CREDS"):
        bus_options_of(bootstrap.load_settings(stream="nats://127.0.0.1:9", stream_creds=str(file)))
    if not text:
        done = inside("detect", UPSTREAMS="127.0.0.1:9", STREAM="nats://127.0.0.1:9", STREAM_CREDS=str(file))
        assert (done.code, is_one_line(done), "STREAM_CREDS" in done.err) == (2, True, True), done
