"""Every setting, read once from the environment and `.env`. `.env.example` lists the same, a test keeps them equal."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.core.errors import NameFormatError, SettingsError
from agents.dns.name import from_text

PRIVATE_NETWORKS = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10"
"""Loopback, RFC 1918, link-local and unique local addresses (RFC 3927, RFC 4193, RFC 4291)."""
FOR_COMPOSE = {"POSTGRES_PASSWORD", "PUBLISH_DNS", "PUBLISH_API"}
"""Names in `.env` that docker-compose.yml alone reads; Compose's own begin with COMPOSE_."""
DAYS_MAX = 3650
COUNT_MAX, POSITIVE_MAX = 100_000_000, 1e8
"""Larger numbers and times (three years of seconds) are slips of the hand, and overflow here or there."""
ROOM_MAX = 1_000_000
"""Most connections, and most queries under way, that room is made for at the start."""
SAMPLES_MIN = 256
"""agents.learning.retraining refuses a smaller sample."""
TOKEN_MIN = 16
"""A shorter API_TOKEN can be guessed; openssl rand -hex 16 gives 32 characters."""


def _networks(text: str) -> str:
    for part in filter(None, (p.strip() for p in text.split(","))):
        ipaddress.ip_network(part, strict=False)
    return text


def _addresses(text: str) -> str:
    for part in text.split(","):
        ipaddress.ip_address(part.strip())
    return text


def _upstreams(text: str) -> str:
    parse_upstreams(text)
    return text


def _ports(text: str) -> str:
    for part in text.split(","):
        if not (part.strip().isascii() and part.strip().isdigit() and 1 <= int(part) <= 65535):
            raise ValueError(f"{part.strip()!r} is no port between 1 and 65535")
    return text


def _web(text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("an address begins with https:// or http://")
    return text


def _secret_web(secret: SecretStr) -> SecretStr:
    _web(secret.get_secret_value())
    return secret


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("a cron expression has five fields, for example 0 2 * * sun")
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=POSITIVE_MAX)]
Webhook = Annotated[SecretStr, AfterValidator(_secret_web)]
Count = Annotated[int, Field(ge=1, le=COUNT_MAX)]
Samples = Annotated[int, Field(ge=SAMPLES_MIN, le=COUNT_MAX)]
Room = Annotated[int, Field(ge=1, le=ROOM_MAX)]
Days = Annotated[int, Field(ge=1, le=DAYS_MAX)]


class Settings(BaseSettings):
    """One attribute a setting; the environment variable has the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(Path(), description="models/, reports/, logs/ and data/ (database, spool) lie below")
    database_url: str = Field("", description="Postgres or SQLite address; empty = SQLite in DATA_DIR/data")
    listen_host: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1", description="addresses to answer DNS on, comma-separated, IPv4 or IPv6"
    )
    listen_port: Port = Field(5335, description="UDP and TCP port to answer DNS on")
    upstreams: Annotated[str, AfterValidator(_upstreams)] = Field(
        "",
        description="zone=address[:port] or address[:port], comma-separated, [v6]:port; empty = the system's resolvers",
    )
    upstream_timeout_s: Positive = Field(2.0, description="seconds to wait for one upstream before the next")
    allowed_clients: Annotated[str, AfterValidator(_networks)] = Field(
        PRIVATE_NETWORKS, description="networks that may ask, comma-separated; others get REFUSED"
    )
    tcp_clients_max: Room = Field(256, description="TCP connections served at once")
    tcp_idle_s: Positive = Field(10.0, description="seconds before an idle TCP connection is closed")
    inflight_max: Room = Field(16384, description="queries waiting for an upstream at once")
    listener_processes: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="processes that answer DNS, each on every address; 0 = one a core"
    )
    queue_max: Annotated[int, Field(ge=1, le=10 * ROOM_MAX)] = Field(
        65536, description="queries waiting to be scored; beyond it the newest are dropped and counted"
    )
    batch_max: Room = Field(1024, description="queries scored at once")
    batch_wait_ms: Positive = Field(50.0, description="longest wait for a batch to fill, milliseconds")

    model_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="vote of the query model where SCORE_COMBINE is weighted; the rest is behaviour"
    )
    score_combine: Literal["max", "weighted"] = Field(
        "max", description="max = the louder of model and behaviour decides; weighted = MODEL_WEIGHT and the rest"
    )
    score_suspicious: Share = Field(0.5, description="score from which a query is SUSPICIOUS")
    score_high: Share = Field(0.7, description="score from which a query is HIGH")
    score_critical: Share = Field(0.9, description="score from which a query is CRITICAL")
    benign_above_suspicious: Share = Field(0.001, description="share of benign queries that may score above 0.5")
    benign_above_high: Share = Field(0.0001, description="share of benign queries that may score above 0.7")
    incident_quiet_s: Positive = Field(3600.0, description="an incident closes after this many seconds without a query")
    window_keys_max: Count = Field(200_000, description="(client, domain) pairs watched at once")

    alert_budget_per_week: Annotated[float, Field(ge=0)] = Field(
        3.0, description="investigations a week that are affordable; each retraining sets the limits by it"
    )

    known_services: Path | None = Field(
        None, description="your own known services (dns-tunnel known); empty = DATA_DIR/data/known_services.csv"
    )

    retention_days: Days = Field(30, description="days that stored queries are kept")
    history_days: Days = Field(365, description="days that closed incidents, retrainings and their reports are kept")
    spool_max_mb: Count = Field(512, description="disk for verdicts while the database is away, megabytes")

    retrain_schedule: Annotated[str, AfterValidator(_cron)] = Field(
        "0 2 * * sun", description="cron expression of the retraining"
    )
    retrain_timezone: str = Field("UTC", description="time zone of RETRAIN_SCHEDULE, for example Europe/Berlin")
    retrain_days: Days = Field(7, description="days of NORMAL queries to learn from")
    retrain_samples: Samples = Field(10_000, description="queries to learn from, at most")
    retrain_max_score: Share = Field(0.5, description="only queries that scored below this are learned from")
    retrain_client_share: Share = Field(0.1, description="most of the sample that one client may contribute")
    retrain_domain_share: Share = Field(0.02, description="most of the sample that one domain may contribute")
    retrain_seed: int = Field(42, description="seed of sampling and training")
    validation_cases: Path | None = Field(
        None,
        description="your own validation cases: a CSV of qname,expected,purpose (expected: NORMAL or HIGH)",
    )
    deploy: Literal["auto", "manual"] = Field(
        "auto",
        description="auto = deploy when every gate passes; manual = wait for dns-tunnel models approve",
    )
    backup_days: Count = Field(30, description="days that model backups are kept (8 weeks = 56 is recommended)")

    api_host: Annotated[str, AfterValidator(_addresses)] = Field("127.0.0.1", description="address of API and console")
    api_port: Port = Field(8053, description="port of API and console")
    api_token: SecretStr = Field(
        SecretStr(""), description="bearer token; empty = made once and kept in DATA_DIR/data/api_token"
    )
    public_url: Annotated[str, AfterValidator(_web)] = Field(
        "", description="address of the console as people see it, for links in messages"
    )

    slack_webhook_url: Webhook = Field(SecretStr(""), description="Slack incoming webhook")
    teams_webhook_url: Webhook = Field(SecretStr(""), description="Teams Workflows webhook")
    email_smtp_host: str = Field("", description="mail server; empty = no mail")
    email_smtp_port: Port = Field(587, description="465 = TLS from the start, else STARTTLS where the server offers it")
    email_from: str = Field("", description="sender")
    email_to: str = Field("", description="recipients, comma-separated")
    email_username: str = Field("", description="login at the mail server; empty = none")
    email_password: SecretStr = Field(SecretStr(""), description="password at the mail server")

    kernels: Literal["auto", "on", "off"] = Field(
        "auto", description="compile what judges queries with numba: auto = where it can be had; off = slower, the same"
    )
    replay_ports: Annotated[str, AfterValidator(_ports)] = Field(
        "53", description="ports that carry DNS in a capture, comma-separated"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line to log")

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def reports_dir(self) -> Path:
        return self.data_dir / "reports" / "training_reports"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def state_dir(self) -> Path:
        """Database, spool, API token, locks."""
        return self.data_dir / "data"

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.state_dir / 'dns-tunnel.db').absolute()}"


def parse_upstreams(text: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """Parse UPSTREAMS into [(zone, [(address, port), …]), …]; zone "" = everything else.

    A zone stands before "="; addresses without a zone belong to "". `a=1.1.1.1,b=2.2.2.2,3.3.3.3`
    gives zone a, zone b and one default. Raises ValueError.
    """
    zones: dict[str, list[tuple[str, int]]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        zone, equals, address = part.rpartition("=")
        if equals and not zone.strip("."):
            raise ValueError(f"{part!r} has no zone before '='")
        _must_be_a_name(zone.strip())
        zones.setdefault(zone.strip().rstrip(".").lower(), []).append(_endpoint(address.strip()))
    return list(zones.items())


def _must_be_a_name(zone: str) -> None:
    try:
        from_text(zone)
    except NameFormatError as error:
        raise ValueError(str(error)) from None


def _endpoint(text: str) -> tuple[str, int]:
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port = rest[1:] or "53"
    elif text.count(":") == 1:
        host, port = text.split(":")
    ipaddress.ip_address(host)
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return host, int(port)


def unknown_names(path: Path = Path(".env")) -> list[str]:
    """Names in `.env` that are no setting: misspelled ones are ignored, and nobody would see it."""
    if not path.is_file():
        return []
    named = (name.upper() for name in dotenv_values(path, interpolate=False))
    return [
        name
        for name in named
        if name.lower() not in Settings.model_fields and name not in FOR_COMPOSE and not name.startswith("COMPOSE_")
    ]


def _see_lines(path: Path = Path(".env")) -> None:
    """Raise SettingsError for a line of `.env` that says nothing: it would be left out, and the program would start."""
    if path.is_file():
        with suppress(UnicodeDecodeError), path.open(encoding="utf-8") as file:
            for binding in parse_stream(file):
                if binding.error:
                    raise SettingsError(f"cannot read .env: line {binding.original.line} is not NAME=value")


def load(**overrides: Any) -> Settings:
    """Read all settings. Raises SettingsError with one line that names the first bad one."""
    _see_lines()
    try:
        settings = Settings(**overrides)
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read .env: it is not UTF-8 at byte {error.start}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        secret = (
            Settings.model_fields[name.lower()].annotation is SecretStr
            if name.lower() in Settings.model_fields
            else True
        )
        shown = "" if secret else f"={first['input']}"
        raise SettingsError(f"cannot use setting {name}{shown}: {first['msg'].removeprefix('Value error, ')}") from None
    if not settings.score_suspicious < settings.score_high < settings.score_critical:
        raise SettingsError("cannot use setting SCORE_HIGH: SCORE_SUSPICIOUS < SCORE_HIGH < SCORE_CRITICAL must hold")
    if not settings.benign_above_high < settings.benign_above_suspicious:
        raise SettingsError("cannot use setting BENIGN_ABOVE_HIGH: it must be smaller than BENIGN_ABOVE_SUSPICIOUS")
    return settings
