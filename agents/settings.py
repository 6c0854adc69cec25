"""Every setting, read once from the environment and `.env`.

Settings of a kind (an intake, a channel, a detector type) are fields of its Spec. `load` reads the common settings and
those of its Specs. `.env.example` and docs/settings.md are made from both (scripts/maintainer/settings_files.py).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.core.errors import SettingsError
from agents.core.protocols import Spec
from agents.core.text import web_address

PRIVATE_NETWORKS = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10"
"""Loopback, RFC 1918, link-local and unique local addresses (RFC 3927, RFC 4193, RFC 4291)."""
FOR_COMPOSE = {"POSTGRES_PASSWORD", "PUBLISH_DNS", "PUBLISH_DNS_2", "PUBLISH_API", "EXTRAS", "COMPOSE_PROFILES"}
"""Names in `.env` that only docker-compose.yml reads; other names of Compose itself begin with COMPOSE_, too."""
DAYS_MAX = 3650
COUNT_MAX, POSITIVE_MAX = 100_000_000, 1e8
"""Larger numbers and times (three years of seconds) are typing errors, and could overflow."""
ROOM_MAX = 1_000_000
"""Largest number of connections or of queries in flight for which memory is allocated at the start."""
SAMPLES_MIN = 256
"""agents.learning.retraining refuses a smaller sample."""
BANDS = {"score_suspicious": 0.3, "score_high": 0.6, "score_critical": 0.8}
"""What SCORE_PRESET=bands sets: a score below 0.3 is normal, from 0.8 on critical."""
TOKEN_MIN = 16
"""A shorter API_TOKEN can be guessed: it is refused."""
RENAMED = {
    "WINDOW_KEYS_MAX": "FLOWS_MAX",
    "BENIGN_ABOVE_SUSPICIOUS": "TARGET_FPR_SUSPICIOUS",
    "BENIGN_ABOVE_HIGH": "TARGET_FPR_HIGH",
    "RETENTION_DAYS": "QUERY_RETENTION_DAYS",
    "HISTORY_DAYS": "INCIDENT_RETENTION_DAYS",
    "KNOWN_SERVICES": "ALLOWLIST",
    "KERNELS": "COMPILED",
}
"""Old names of settings, each with its new name. Old names are still read for one release."""


def _networks(text: str) -> str:
    for part in filter(None, (p.strip() for p in text.split(","))):
        ipaddress.ip_network(part, strict=False)
    return text


def _addresses(text: str) -> str:
    for part in text.split(","):
        ipaddress.ip_address(part.strip())
    return text


def _token(secret: SecretStr) -> SecretStr:
    if 0 < len(secret.get_secret_value()) < TOKEN_MIN:
        raise ValueError(f"shorter than {TOKEN_MIN} characters, it can be guessed (openssl rand -hex 16 makes one)")
    return secret


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("a cron expression has five fields, for example 0 2 * * sun")
    return text


def _cron_or_never(text: str) -> str:
    return _cron(text) if text.strip() else ""


def _names(field: str) -> AliasChoices:
    """The field's own name and its old name."""
    return AliasChoices(field, *(old.lower() for old, new in RENAMED.items() if new == field.upper()))


Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=POSITIVE_MAX)]
Count = Annotated[int, Field(ge=1, le=COUNT_MAX)]
Samples = Annotated[int, Field(ge=SAMPLES_MIN, le=COUNT_MAX)]
Room = Annotated[int, Field(ge=1, le=ROOM_MAX)]
Days = Annotated[int, Field(ge=1, le=DAYS_MAX)]


class Settings(BaseSettings):
    """One attribute for each setting; the environment variable has the same name in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        validate_default=False,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    data_dir: Path = Field(Path(), description="models/, reports/, logs/ and data/ (database, spool) lie below")
    database_url: str = Field("", description="Postgres or SQLite address; empty = SQLite in DATA_DIR/data")
    listen_host: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1", description="addresses to answer DNS on, comma-separated, IPv4 or IPv6"
    )
    listen_port: Port = Field(5335, description="UDP and TCP port to answer DNS on")
    run_as: str = Field(
        "", description="user that `run` and `listen` become when they hold their ports; empty = whoever started them"
    )
    upstreams: str = Field(
        "",
        description="resolvers, comma-separated: address or host name[:port], [v6]:port, tcp://…, tls://…#name, "
        "https://…/path; zone=… for one zone; empty = the system's resolvers",
    )
    upstream_timeout_s: Positive = Field(2.0, description="seconds to wait for one upstream before the next")
    client_wait_s: Positive = Field(
        5.0, description="seconds that a client waits for an answer; until then a late one is used"
    )
    retry_failed: bool = Field(True, description="ask the next upstream after SERVFAIL and REFUSED")
    forward: Literal["normalised", "verbatim"] = Field(
        "normalised",
        description="normalised = what goes upstream is made of lower-case name, type, CD and DO alone; verbatim = as "
        "it came",
    )
    ecs: Literal["off", "on"] = Field(
        "off", description="pass on a client's EDNS subnet with a normalised query, cut to ECS_PREFIX_…"
    )
    ecs_prefix_v4: Annotated[int, Field(ge=1, le=32)] = Field(
        24, description="bits of an IPv4 subnet that are passed on (RFC 7871 section 11.1)"
    )
    ecs_prefix_v6: Annotated[int, Field(ge=1, le=128)] = Field(56, description="bits of an IPv6 subnet")
    detect_loops: bool = Field(
        True, description="ask each upstream a random name now and then; where it comes back, that upstream is not used"
    )
    allowed_clients: Annotated[str, AfterValidator(_networks)] = Field(
        PRIVATE_NETWORKS, description="networks that may ask, comma-separated; others get REFUSED"
    )
    strict_clients: str = Field(
        "",
        description="strict groups, NETWORK=FILE, comma-separated: these clients may ask for the domains in the "
        "file alone, one a line, below DATA_DIR; another name is NXDOMAIN and an incident",
    )
    tcp_clients_max: Room = Field(256, description="TCP connections served at once")
    tcp_idle_s: Positive = Field(10.0, description="seconds before an idle TCP connection is closed")
    inflight_max: Room = Field(16384, description="queries waiting for an upstream at once")
    listener_processes: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="processes that answer DNS, each on every address; 0 = one a core"
    )
    detector_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="processes that judge queries, each those of its clients; more than 1 needs PRIVACY=off"
    )
    shared_clients: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="addresses and networks, comma-separated, that stand for many clients each, as forwarding "
        "resolvers do: all of DETECTOR_PROCESSES judge their queries, each below other domains",
    )
    hang_s: Annotated[float, Field(ge=5, le=POSITIVE_MAX)] = Field(
        15.0, description="seconds without a sign of life before a process is killed and started again"
    )
    queue_max: Annotated[int, Field(ge=1, le=10 * ROOM_MAX)] = Field(
        65536,
        description="queries waiting to be scored; as it fills, those of the client with the most are dropped first",
    )
    batch_max: Room = Field(1024, description="queries scored at once")
    batch_wait_ms: Positive = Field(50.0, description="longest wait for a batch to fill, milliseconds")

    model_type: str = Field(
        "forest", description="detector type of the query model that retraining makes; docs/learning.md compares them"
    )
    compare_types: str = Field(
        "all", description="detector types that each report compares on the same data, comma-separated; all, or none"
    )
    model_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="vote of the query model where SCORE_COMBINE is weighted; the rest is behaviour"
    )
    score_combine: Literal["max", "weighted"] = Field(
        "max", description="max = the louder of model and behaviour decides; weighted = MODEL_WEIGHT and the rest"
    )
    score_preset: Literal["usual", "bands"] = Field(
        "usual", description="what SCORE_… are where they have their defaults; bands = 0.3, 0.6 and 0.8"
    )
    score_suspicious: Share = Field(0.5, description="score from which a query is SUSPICIOUS")
    score_high: Share = Field(0.7, description="score from which a query is HIGH")
    score_critical: Share = Field(0.9, description="score from which a query is CRITICAL")
    target_fpr_suspicious: Share = Field(
        0.001,
        validation_alias=_names("target_fpr_suspicious"),
        description="share of benign queries that may score above SCORE_SUSPICIOUS",
    )
    target_fpr_high: Share = Field(
        0.0001,
        validation_alias=_names("target_fpr_high"),
        description="share of benign queries that may score above SCORE_HIGH",
    )
    incident_quiet_s: Positive = Field(3600.0, description="an incident closes after this many seconds without a query")
    flows_max: Count = Field(
        200_000, validation_alias=_names("flows_max"), description="(client, domain) pairs watched at once"
    )

    alert_budget_per_week: Annotated[float, Field(ge=0)] = Field(
        3.0, description="investigations a week that are affordable; each retraining sets the limits by it"
    )

    alert_interval_s: Positive = Field(300.0, description="seconds between two messages about one client")
    alerts_per_hour_max: Annotated[int, Field(ge=2, le=3600)] = Field(
        30, description="messages an hour over all clients; beyond it one digest lists all of them"
    )
    alerts_sent_by: Literal["detector", "scheduler"] = Field(
        "detector",
        description="who sends alerts over the channels: what judges, or the scheduler, which finds them in DATA_DIR; "
        "the others need no secrets of the channels",
    )

    export_severity: Literal["SUSPICIOUS", "HIGH", "CRITICAL"] = Field(
        "SUSPICIOUS", description="incidents from this severity on go to other programs (EXPORT_…)"
    )

    webhooks_plain_http: Literal["off", "on"] = Field(
        "off",
        description="let webhooks, and a Pi-hole with PIHOLE_PASSWORD, be http:// to other machines: their address or "
        "password is a secret, and can be read there",
    )

    burn_in_days: Annotated[int, Field(ge=0, le=28)] = Field(
        7,
        description="days with queries before this network's habits are known: until then only what is CRITICAL and "
        "looks like no kind of benign service sends a message; all else is listed",
    )
    own_zones: str = Field(
        "",
        description="zones of this network's own, comma-separated: what stays inside is no leak; those that UPSTREAMS "
        "sends to private addresses of other machines are among them",
    )

    allowlist: Path | None = Field(
        None,
        validation_alias=_names("allowlist"),
        description="your own known services (dns-tunnel allow); empty = DATA_DIR/data/known_services.csv",
    )

    query_retention_days: Days = Field(
        30, validation_alias=_names("query_retention_days"), description="days that stored queries are kept"
    )
    replay_retention_days: Days = Field(
        30, description="days that what `replay --store` wrote is kept, counted from its import"
    )
    incident_retention_days: Days = Field(
        365,
        validation_alias=_names("incident_retention_days"),
        description="days that closed incidents, flow-hours, retrainings and their reports are kept",
    )
    spool_max_mb: Count = Field(512, description="disk for verdicts while the database is away, megabytes")

    spool_dir: Path | None = Field(
        None, description="folder of those verdicts, for example on another disk; empty = DATA_DIR/data/spool"
    )

    retrain_schedule: Annotated[str, AfterValidator(_cron)] = Field(
        "0 2 * * sun", description="cron expression of the retraining"
    )
    retrain_timezone: str = Field(
        "UTC", description="time zone of RETRAIN_SCHEDULE and SUMMARY_SCHEDULE, for example Europe/Berlin"
    )
    summary_schedule: Annotated[str, AfterValidator(_cron_or_never)] = Field(
        "0 8 * * mon",
        description="cron expression of the message that sums up the last seven days: incidents that nobody was paged "
        "for, and what was heard; empty = never",
    )
    retrain_days: Days = Field(7, description="days of NORMAL queries to learn from")
    retrain_samples: Samples = Field(10_000, description="queries to learn from, at most")
    retrain_new_min: Annotated[int, Field(ge=0, le=COUNT_MAX)] = Field(
        0,
        description="NORMAL queries since the last training without which a run learns nothing, for hourly schedules "
        "(100); the shipped model always gives way; 0 = any",
    )
    retrain_max_score: Share = Field(0.5, description="only queries that scored below this are learned from")
    retrain_client_share: Share = Field(0.1, description="most of the sample that one client may contribute")
    retrain_domain_share: Share = Field(0.02, description="most of the sample that one domain may contribute")
    retrain_seed: int = Field(42, description="seed of sampling and training")
    validation_cases: Path | None = Field(
        None,
        description="your own validation cases: a CSV of qname,expected,purpose (expected: NORMAL or HIGH)",
    )
    deploy: Literal["auto", "manual", "canary"] = Field(
        "auto",
        description="what follows when every gate passes: auto = deploy; manual = wait for dns-tunnel models approve, "
        "also what cycles learn; canary = judge some clients first",
    )
    approvals: Annotated[int, Field(ge=1, le=9)] = Field(
        1, description="authors who must approve a candidate that waits before it is deployed"
    )
    backup_days: Count = Field(
        56,
        description="days that models of before are kept: of retrainings all, of what cycles learn the last of a day",
    )

    api_host: Annotated[str, AfterValidator(_addresses)] = Field("127.0.0.1", description="address of API and console")
    api_port: Port = Field(8053, description="port of API and console")
    api_token: Annotated[SecretStr, AfterValidator(_token)] = Field(
        SecretStr(""), description="bearer token; empty = made once and kept in DATA_DIR/data/api_token"
    )
    public_url: Annotated[str, AfterValidator(web_address)] = Field(
        "", description="address of the console as people see it, for links in messages"
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "", description="networks of reverse proxies whose X-Forwarded-For is believed, comma-separated; empty = none"
    )

    compiled_for: Literal["host", "any"] = Field(
        "host",
        description="processor that kernels are compiled for; any = each x86-64-v2 or ARMv8: an image needs no other",
    )
    compiled: Literal["auto", "on", "off"] = Field(
        "auto",
        validation_alias=_names("compiled"),
        description="compile what judges queries with numba: auto = where it can be had; off = slower, the same",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line to log")

    def of(self, spec: Spec[Any]) -> dict[str, Any]:
        """Values of a kind's own settings by their names, secrets as plain text."""
        return {field.name: _plain(getattr(self, field.name)) for field in spec.fields}

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
        """Folder of database, spool, API token and locks."""
        return self.data_dir / "data"

    @property
    def spool_folder(self) -> Path:
        return self.spool_dir or self.state_dir / "spool"

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.state_dir / 'dns-tunnel.db').absolute()}"


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@cache
def settings_of(specs: tuple[Spec[Any], ...]) -> type[Settings]:
    """The class of the common settings and the settings of the Specs."""
    fields: dict[str, Any] = {}
    for field in (field for spec in specs for field in spec.fields):
        kind: Any = SecretStr if field.secret else field.kind
        if field.check:
            kind = Annotated[kind, AfterValidator(_checked(field.check))]
        default = SecretStr(field.default) if field.secret else field.default
        fields[field.name] = kind, Field(default, description=field.description)
    return cast(type[Settings], create_model("Settings", __base__=Settings, **fields))


def _checked(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        check(_plain(value))
        return value

    return validate


def unknown_names(settings: Settings, path: Path = Path(".env")) -> list[str]:
    """Names in `.env` that are not settings: a misspelled name would be ignored without notice."""
    known = {name.upper() for name in type(settings).model_fields} | FOR_COMPOSE | set(RENAMED)
    return [name for name in _named_in(path) if name not in known and not name.startswith("COMPOSE_")]


def old_names(path: Path = Path(".env")) -> list[str]:
    """Old names of settings that the environment or `.env` uses."""
    return [name for name in RENAMED if name in {*_named_in(path), *map(str.upper, os.environ)}]


def _named_in(path: Path) -> list[str]:
    return [name.upper() for name in dotenv_values(path, interpolate=False)] if path.is_file() else []


def _see_lines(path: Path = Path(".env")) -> None:
    """Raise SettingsError for an invalid line of `.env`: otherwise it would be ignored without notice."""
    if path.is_file():
        with suppress(UnicodeDecodeError), path.open(encoding="utf-8") as file:
            for binding in parse_stream(file):
                if binding.error:
                    raise SettingsError(f"cannot read .env: line {binding.original.line} is not NAME=value")


def load(specs: Iterable[Spec[Any]] = (), /, **overrides: Any) -> Settings:
    """Read the common settings and those of the Specs. Raises SettingsError: one line that names the first bad setting.

    overrides: values by the names of settings; they take the place of the environment and `.env`.
    """
    _see_lines()
    specs = tuple(specs)
    made = settings_of(specs)
    if unknown := {name for name in overrides if not name.startswith("_")} - made.model_fields.keys():
        raise TypeError(f"no settings: {', '.join(sorted(unknown))}")
    try:
        settings = made(**overrides)
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read .env: it is not UTF-8 at byte {error.start}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        field = made.model_fields[name.lower()]
        if name not in {*_named_in(Path(".env")), *map(str.upper, os.environ)}:
            name = next((old for old in old_names() if RENAMED[old] == name), name)
        shown = "" if field.annotation is SecretStr else f"={first['input']}"
        raise SettingsError(f"cannot use setting {name}{shown}: {first['msg'].removeprefix('Value error, ')}") from None
    presets: list[tuple[dict[str, str], Mapping[str, Any]]] = [({"score_preset": "bands"}, BANDS)]
    presets += [({name: value}, preset) for spec in specs for (name, value), preset in spec.presets.items()]
    for chosen, preset in presets:
        if all(getattr(settings, name) == value for name, value in chosen.items()):
            unset = [name for name in preset if getattr(settings, name) == made.model_fields[name].default]
            settings = settings.model_copy(update={name: preset[name] for name in unset})
    if not settings.score_suspicious < settings.score_high < settings.score_critical:
        raise SettingsError("cannot use setting SCORE_HIGH: SCORE_SUSPICIOUS < SCORE_HIGH < SCORE_CRITICAL must hold")
    if not settings.target_fpr_high < settings.target_fpr_suspicious:
        raise SettingsError("cannot use setting TARGET_FPR_HIGH: it must be smaller than TARGET_FPR_SUSPICIOUS")
    return settings
