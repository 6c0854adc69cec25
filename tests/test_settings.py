"""`.env.example` and `docker-compose.yml` say what `agents/settings.py` says."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from agents.settings import FOR_COMPOSE, Settings, load, unknown_names

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
FIELDS = Settings.model_fields


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)


def _assignments() -> list[str]:
    return re.findall(r"^([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)


def test_the_example_lists_every_setting_once_and_nothing_else() -> None:
    listed = [name for name in _assignments() if name not in FOR_COMPOSE]
    assert listed == [name.upper() for name in FIELDS]
    assert set(_assignments()) - set(listed) == FOR_COMPOSE


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_stands_below_its_description(name: str) -> None:
    description = FIELDS[name].description
    assert description
    assert f"\n# {description}\n{name.upper()}=" in EXAMPLE


def test_the_example_as_it_is_gives_the_defaults() -> None:
    assert load(_env_file=ROOT / ".env.example") == load(_env_file=None)


def test_each_value_in_the_example_is_the_default_spelled_out() -> None:
    values = dotenv_values(stream=io.StringIO(EXAMPLE))
    for name, field in FIELDS.items():
        default = field.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        assert values[name.upper()] == ("" if shown is None else str(shown)), name


def test_a_secret_in_single_quotes_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("EMAIL_PASSWORD='a #1 $ecret'\n")
    assert load(_env_file=tmp_path / "env").email_password.get_secret_value() == "a #1 $ecret"


def test_the_example_names_nothing_unknown_and_a_misspelled_name_is_told(tmp_path: Path) -> None:
    assert unknown_names(ROOT / ".env.example") == []
    assert unknown_names(tmp_path / "nowhere") == []
    (tmp_path / "env").write_text("LISTEN_PROT=53\nlog_level=info\nCOMPOSE_PROJECT_NAME=x\n")
    assert unknown_names(tmp_path / "env") == ["LISTEN_PROT"]


def test_no_comment_follows_a_value() -> None:
    assert not re.search(r"^[A-Z0-9_]+=[^'\n]*#", EXAMPLE, re.MULTILINE)


def test_compose_asks_for_no_variable_that_the_example_does_not_name() -> None:
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))
    assert asked == FOR_COMPOSE | {"DATABASE_URL"}


def test_compose_publishes_on_ipv4_where_a_clients_address_survives() -> None:
    """Without an address Docker publishes on IPv6 too, and shows its own, allowed address for every client there."""
    ports = re.findall(r"\$\{PUBLISH_\w+:-(\S+?)\}:\d+", COMPOSE)
    assert sorted(set(ports)) == ["0.0.0.0:53", "127.0.0.1:8053"]
    for name in ("DNS", "API"):
        assert re.search(rf"^PUBLISH_{name}=({'|'.join(ports)})$", EXAMPLE, re.MULTILINE)


def test_compose_publishes_the_ports_that_it_sets() -> None:
    published = set(re.findall(r"^ +- \$\{PUBLISH_\w+:-\S+?\}:(\d+)", COMPOSE, re.MULTILINE))
    assert published == set(re.findall(r"_PORT: \"(\d+)\"", COMPOSE))
