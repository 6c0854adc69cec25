"""What every command begins with: settings of every kind, folders, database, token."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr

from agents import enforcement
from agents import settings as settings_module
from agents.alerting.manager import CHANNELS
from agents.core.errors import AgentsError
from agents.core.files import PRIVATE_MODE, make_private_folder, write_atomic
from agents.core.protocols import Spec
from agents.detection import privacy
from agents.detection.limits import Scale
from agents.enforcement.rpz import options as rpz_options
from agents.export.outputs import OUTPUTS
from agents.learning.comparison import bounds
from agents.learning.fleet import options as fleet_options
from agents.learning.images import image_model
from agents.learning.loop import options as learner_options
from agents.learning.loop import review
from agents.learning.release import canary, mlflow_server, staging
from agents.learning.sequences import beside
from agents.learning.sequences import bounds as sequence_bounds
from agents.runtime.bootstrap import logins
from agents.runtime.drill import options as drill_options
from agents.runtime.privileges import give_away, user_of
from agents.scoring import MODEL_TYPES
from agents.settings import Settings
from agents.sources import SPECS as INTAKES
from agents.sources.listener import cache, special_names, traffic
from agents.sources.live.addresses import RECEIVE
from agents.sources.tail import COLLECT
from agents.store.hunting import options as hunt_options
from agents.store.opening import open_store
from agents.store.sql import Store
from agents.stream.bus import options as bus_options

BACKUPS_README = """\
A backup of the model in use is made here before each retraining: model_backup_YYYYMMDD_HHMMSS.npz.
They are NumPy archives without pickles: there are no *.pkl files any more. BACKUP_DAYS says how long they are kept.

List:     dns-tunnel models list
Restore:  dns-tunnel models restore models/backups/model_backup_YYYYMMDD_HHMMSS.npz
"""
"""What people find who look for the files of older instructions."""

FLOW_MODELS = "flow"
"""Folder of the flow models, in that of the models."""

SPECS: tuple[Spec[Any], ...] = (
    special_names.SPEC,
    traffic.SPEC,
    cache.SPEC,
    COLLECT,
    RECEIVE,
    *INTAKES,
    *MODEL_TYPES,
    *CHANNELS,
    *OUTPUTS,
    privacy.SPEC,
    hunt_options.SPEC,
    review.SPEC,
    learner_options.SPEC,
    beside.SPEC,
    sequence_bounds.SPEC,
    image_model.SPEC,
    fleet_options.SPEC,
    enforcement.SPEC,
    bounds.SPEC,
    rpz_options.SPEC,
    canary.SPEC,
    staging.SPEC,
    mlflow_server.SPEC,
    drill_options.SPEC,
    logins.SPEC,
    bus_options.SPEC,
)
"""Special names, limits, logs that are followed, live intakes, every kind of intake, detector type, channel and export,
privacy, hunting, reviews, enforcement: settings and documents are made of them."""


def load_settings(**overrides: Any) -> Settings:
    """Read all settings, those of every kind among them. Raises SettingsError."""
    return settings_module.load(SPECS, **overrides)


def noted_settings(settings: Settings) -> dict[str, Any]:
    """All settings for other processes to compare with theirs: a secret as its fingerprint, "" where it is not set."""
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "values": _comparable(settings, salt)}


def differing_settings(settings: Settings, noted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that a running process has otherwise, by name: (there, here). What only one release knows is none."""
    salt, there = noted.get("salt"), noted.get("values")
    if not isinstance(salt, str) or not isinstance(there, dict):
        return {}
    try:
        here = _comparable(settings, bytes.fromhex(salt))
    except ValueError:
        return {}
    return {name: (there[name], here[name]) for name in here if name in there and there[name] != here[name]}


def as_noted(settings: Settings, noted: Mapping[str, Any]) -> Settings:
    """The settings of a running process; secrets, which it does not note, are those of `settings`."""
    there = {name: value[0] for name, value in differing_settings(settings, noted).items()}
    plain = {name: value for name, value in there.items() if not is_secret(settings, name)}
    return load_settings(**plain | {"data_dir": settings.data_dir})


def is_secret(settings: Settings, name: str) -> bool:
    """Whether a setting's value is not to be seen; an address of a database may have a password in it."""
    return name == "database_url" or isinstance(getattr(settings, name), SecretStr)


def shown_settings(settings: Settings) -> list[tuple[str, str, str]]:
    """All settings for people: name, value (a secret: whether it is set), and where it came from."""
    given, file = {name.upper() for name in os.environ}, {name.upper() for name in dotenv_values(".env")}
    older = {new: old for old, new in settings_module.RENAMED.items()}
    shown = []
    for name, value in settings.model_dump(mode="json").items():
        text = ("set" if value else "not set") if is_secret(settings, name) else str(value)
        names = {name.upper(), older.get(name.upper(), name.upper())}
        usual = value == type(settings).model_fields[name].get_default(call_default_factory=True, validated_data={})
        origin = "environment" if names & given else ".env" if names & file else "default" if usual else "preset"
        shown.append((name.upper(), text, origin))
    return sorted(shown)


def _comparable(settings: Settings, salt: bytes) -> dict[str, Any]:
    plain = settings.model_dump(mode="json", exclude={"data_dir"})
    for name in plain:
        if is_secret(settings, name):
            value = getattr(settings, name)
            secret = value.get_secret_value() if isinstance(value, SecretStr) else value
            plain[name] = secret and hashlib.scrypt(secret.encode(), salt=salt, n=1 << 12, r=8, p=1).hex()
    return plain


def make_folders(settings: Settings) -> None:
    """What people look into before the first run is there: folders, and an empty retraining log.

    Raises AgentsError where the disk does not let us.
    """
    user = user_of(settings.run_as)
    try:
        new = [folder for folder in folders_of(settings) if not folder.exists() or not any(folder.iterdir())]
        for folder in folders_of(settings):
            folder.mkdir(parents=True, exist_ok=True)
        make_private_folder(settings.state_dir)
        if not retraining_log(settings).exists():
            retraining_log(settings).touch()
            new.append(retraining_log(settings))
        if not (readme := settings.models_dir / "backups" / "README").exists():
            write_atomic(readme, BACKUPS_README.encode(), sync=False)
            new.append(readme)
        if user is not None:
            give_away(user, new)
    except OSError as error:
        raise AgentsError(f"cannot write to {error.filename}: {error.strerror}") from None


def folders_of(settings: Settings) -> list[Path]:
    models, reports = settings.models_dir, settings.reports_dir
    results = (models, models / "backups", models / FLOW_MODELS, reports.parent, reports)
    own_spool = [settings.spool_dir] if settings.spool_dir else []
    return [settings.data_dir, *results, settings.logs_dir, settings.state_dir, *own_spool]


def retraining_log(settings: Settings) -> Path:
    """The log that people follow."""
    return settings.logs_dir / "retraining.log"


def scale_of(settings: Settings) -> Scale:
    """Where severities begin."""
    return Scale(
        suspicious=settings.score_suspicious,
        high=settings.score_high,
        critical=settings.score_critical,
        model_weight=settings.model_weight,
        combine=settings.score_combine,
    )


def store_of(settings: Settings) -> Store:
    """The database, not yet connected; SQLite's folder is made."""
    if not settings.database_url:
        make_private_folder(settings.state_dir)
    return open_store(settings.store_url)


def api_token_of(settings: Settings) -> str:
    """The token of the API: the setting, or one made once and kept readable by its owner alone.

    Raises AgentsError for a file that holds none.
    """
    given = settings.api_token.get_secret_value()
    if given:
        return given
    path = token_path(settings)
    if not path.exists():
        make_private_folder(path.parent)
        write_atomic(path, secrets.token_urlsafe(24).encode(), mode=PRIVATE_MODE)
    token = path.read_text("ascii", errors="replace").strip()
    if not token or not token.isascii():
        raise AgentsError(f"cannot use {path}: there is no token in it; remove it, and another is made")
    return token


def token_path(settings: Settings) -> Path:
    """Where a made token is kept."""
    return settings.state_dir / "api_token"
