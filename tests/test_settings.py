"""`.env.example`, docs/settings.md and `docker-compose.yml` say what the settings and the Specs of kinds say."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from agents.core.errors import SettingsError
from agents.core.protocols import Field, Spec
from agents.core.types import Severity
from agents.learning.loop.options import SPEC as LEARNING
from agents.runtime import bootstrap
from agents.runtime.bootstrap import SPECS, load_settings
from agents.settings import FOR_COMPOSE, RENAMED, old_names, settings_of, unknown_names
from agents.settings import load as load_common
from scripts.maintainer.settings_files import FILES

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
FIELDS = settings_of(SPECS).model_fields


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FIELDS, *RENAMED):
        monkeypatch.delenv(name.upper(), raising=False)


def _assignments() -> list[str]:
    return re.findall(r"^([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)


def test_the_example_lists_every_setting_once_and_nothing_else() -> None:
    listed = [name for name in _assignments() if name not in FOR_COMPOSE]
    assert listed == [name.upper() for name in FIELDS]
    assert set(_assignments()) - set(listed) == FOR_COMPOSE


@pytest.mark.parametrize("path", FILES)
def test_what_is_made_from_the_settings_is_made_from_those_of_today(path: str) -> None:
    assert (ROOT / path).read_text("utf-8") == FILES[path](), "make settings"


def test_every_setting_is_described() -> None:
    assert [name for name, field in FIELDS.items() if not field.description] == []


def test_the_example_as_it_is_gives_the_defaults() -> None:
    assert load_settings(_env_file=ROOT / ".env.example") == load_settings(_env_file=None)


def test_each_value_in_the_example_is_the_default_spelled_out() -> None:
    values = dotenv_values(stream=io.StringIO(EXAMPLE))
    for name, field in FIELDS.items():
        default = field.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        assert values[name.upper()] == ("" if shown is None else str(shown)), name


def test_a_secret_in_single_quotes_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("EMAIL_PASSWORD='a #1 $ecret'\n")
    (email,) = (spec for spec in SPECS if spec.name == "email")
    settings = load_settings(_env_file=tmp_path / "env")
    assert settings.of(email)["email_password"] == "a #1 $ecret"
    assert "$ecret" not in repr(settings)


def test_the_old_names_of_settings() -> None:
    """Each works for one release more."""
    assert RENAMED == {
        "WINDOW_KEYS_MAX": "FLOWS_MAX",
        "BENIGN_ABOVE_SUSPICIOUS": "TARGET_FPR_SUSPICIOUS",
        "BENIGN_ABOVE_HIGH": "TARGET_FPR_HIGH",
        "RETENTION_DAYS": "QUERY_RETENTION_DAYS",
        "HISTORY_DAYS": "INCIDENT_RETENTION_DAYS",
        "KNOWN_SERVICES": "ALLOWLIST",
        "KERNELS": "COMPILED",
    }


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_read_and_named_and_the_new_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    values = {"ALLOWLIST": ("a.csv", "b.csv"), "COMPILED": ("off", "on")}
    first, second = values.get(new, ("0.0003", "0.0002") if "FPR" in new else ("21", "22"))
    (tmp_path / "env").write_text(f"{old}={first}\n")

    def value() -> str:
        return str(getattr(load_settings(_env_file=tmp_path / "env"), new.lower()))

    assert value() == first
    assert old_names(tmp_path / "env") == [old]
    assert unknown_names(load_settings(), tmp_path / "env") == []
    monkeypatch.setenv(new, second)
    assert value() == second
    monkeypatch.delenv(new)
    monkeypatch.setenv(old, second)
    assert value() == second
    assert old_names(tmp_path / "nowhere") == [old]


def test_an_old_name_with_a_bad_value_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDOW_KEYS_MAX", "0")
    with pytest.raises(SettingsError, match=r"^cannot use setting WINDOW_KEYS_MAX=0: "):
        load_settings()


def test_settings_of_a_kind_are_read_checked_and_hidden_as_its_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def even(number: int) -> None:
        if number % 2:
            raise ValueError("it is odd")

    fields = (Field("tap_rate", int, 2, "a rate", even), Field("tap_key", str, "", "a key", secret=True))
    tap: Spec[Any] = Spec("tap", "a tap", fields, factory=dict)
    assert load_common([tap]).of(tap) == {"tap_rate": 2, "tap_key": ""}
    monkeypatch.setenv("TAP_RATE", "4")
    monkeypatch.setenv("TAP_KEY", "geheim")
    found = load_common([tap])
    assert found.of(tap) == {"tap_rate": 4, "tap_key": "geheim"}
    assert "geheim" not in repr(found)
    monkeypatch.setenv("TAP_RATE", "5")
    with pytest.raises(SettingsError, match=r"^cannot use setting TAP_RATE=5: it is odd$"):
        load_common([tap])
    with pytest.raises(TypeError, match="no settings: tap_rate"):
        load_common(tap_rate=5)


def test_the_example_names_nothing_unknown_and_a_misspelled_name_is_told(tmp_path: Path) -> None:
    assert unknown_names(load_settings(), ROOT / ".env.example") == []
    assert unknown_names(load_settings(), tmp_path / "nowhere") == []
    (tmp_path / "env").write_text("LISTEN_PROT=53\nlog_level=info\nCOMPOSE_PROJECT_NAME=x\n")
    assert unknown_names(load_settings(), tmp_path / "env") == ["LISTEN_PROT"]


def test_no_comment_follows_a_value() -> None:
    assert not re.search(r"^[A-Z0-9_]+=[^'\n]*#", EXAMPLE, re.MULTILINE)


def test_compose_asks_for_no_variable_that_the_example_does_not_name() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))
    assert asked == FOR_COMPOSE - {"COMPOSE_PROFILES"} | {"DATABASE_URL"}


def test_compose_publishes_on_ipv4_where_a_clients_address_survives() -> None:
    """Without an address Docker publishes on IPv6 too, and shows its own, allowed address for every client there."""
    ports = re.findall(r"\$\{PUBLISH_\w+:-(\S+?)\}:\d+", COMPOSE)
    assert sorted(set(ports)) == ["0.0.0.0:53", "127.0.0.1:5353", "127.0.0.1:8053"]
    for name in ("DNS", "DNS_2", "API"):
        assert re.search(rf"^PUBLISH_{name}=({'|'.join(ports)})$", EXAMPLE, re.MULTILINE)


def test_compose_publishes_the_ports_that_it_sets() -> None:
    published = set(re.findall(r"^ +- \$\{PUBLISH_\w+:-\S+?\}:(\d+)", COMPOSE, re.MULTILINE))
    assert published == set(re.findall(r"_PORT: \"(\d+)\"", COMPOSE))


def test_a_preset_sets_what_nobody_has_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    scores = ("score_suspicious", "score_high", "score_critical")
    usual = load_settings()
    assert [getattr(usual, name) for name in scores] == [0.5, 0.7, 0.9]
    monkeypatch.setenv("SCORE_PRESET", "bands")
    assert [getattr(load_settings(), name) for name in scores] == [0.3, 0.6, 0.8]
    monkeypatch.setenv("SCORE_HIGH", "0.75")
    assert [getattr(load_settings(), name) for name in scores] == [0.3, 0.75, 0.8]
    assert bootstrap.scale_of(load_settings()).severity(0.35) is Severity.SUSPICIOUS
    monkeypatch.setenv("SCORE_HIGH", "0.85")
    with pytest.raises(SettingsError, match="SCORE_SUSPICIOUS < SCORE_HIGH < SCORE_CRITICAL"):
        load_settings()


def test_a_preset_of_the_learner_sets_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    names = ("learning_interval", "learning_min_samples", "learning_batch")
    found = {}
    for preset in ("usual", "high", "low", "fleet"):
        monkeypatch.setenv("LEARNING_PRESET", preset)
        settings = load_settings()
        found[preset] = tuple(getattr(settings, name) for name in names)
    assert found == {
        "usual": (3600, 100, 32),
        "high": (1800, 200, 64),
        "low": (7200, 50, 16),
        "fleet": (3600, 500, 128),
    }
    monkeypatch.setenv("LEARNING_BATCH", "8")
    assert load_settings().of(LEARNING)["learning_batch"] == 8
    assert load_settings(learning_interval=90.0).of(LEARNING)["learning_interval"] == 90
    monkeypatch.setenv("LEARNING_INTERVAL", "3600.0")  # as in a copy of .env.example
    assert load_settings().of(LEARNING)["learning_interval"] == 3600
    monkeypatch.setenv("LEARNING_PRESET", "low")
    assert load_settings().of(LEARNING)["learning_interval"] == 7200
    monkeypatch.setenv("LEARNING_PRESET", "huge")
    with pytest.raises(SettingsError, match="LEARNING_PRESET=huge"):
        load_settings()
