#!/usr/bin/env python3
"""Write .env.example and docs/settings.md from the settings and the Specs of every kind.

python scripts/maintainer/settings_files.py            (make settings)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pydantic import SecretStr

from agents.runtime.bootstrap import SPECS
from agents.settings import RENAMED, Settings, settings_of

SECTIONS = {
    "data_dir": "Where things lie",
    "listen_host": "Listener",
    "model_weight": "Scores, severities, incidents",
    "alert_budget_per_week": "Alert budget",
    "query_retention_days": "Store",
    "retrain_schedule": "Retraining",
    "api_host": "API and console",
    "compiled": "Program",
}
"""The section that begins with a common setting."""
SEVERAL = "logs of several kinds"
"""The section of settings that several kinds share."""
HEAD = """\
# All settings with their defaults. Copy this file to .env and change what you need; an empty value is the default.
# A value with a space, #, $ or a quote in it goes between single quotes: EMAIL_PASSWORD='a #1 $ecret'.
# Comments stand on lines of their own: Compose and python-dotenv differ on what follows a value.

# ---- docker compose only ----

# password of the database that compose runs; needed there. The first `up` sets it for good: it lives in the volume
POSTGRES_PASSWORD=
# address:port where clients find the listener; 192.0.2.1:53, say, where something else has 127.0.0.53:53
PUBLISH_DNS=0.0.0.0:53
# address:port of API and console on the host
PUBLISH_API=127.0.0.1:8053
# extras that the image is built with, by name: nats, say
EXTRAS=
# profiles of docker-compose.yml: cluster (docs/docker.md), and where clients find its second listener
COMPOSE_PROFILES=
PUBLISH_DNS_2=127.0.0.1:5353
# (inside the containers compose sets DATA_DIR, LISTEN_HOST, LISTEN_PORT, API_HOST and API_PORT itself;
# an empty DATABASE_URL means its own Postgres)
"""


def sections() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """(heading, [(name, default, description)]) of the common settings, then of each kind."""
    rows: list[tuple[str, str, str]] = []
    heading = ""
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            if rows:
                yield heading, rows
            heading, rows = SECTIONS[name], []
        rows.append((name.upper(), shown(field.default), field.description or ""))
    yield heading, rows
    fields, specs = settings_of(SPECS).model_fields, dict[str, list[str]]()
    for spec in SPECS:
        for one in spec.fields:
            specs.setdefault(one.name, []).append(spec.summary)
    for heading, group in groupby(specs, lambda name: specs[name][0] if len(specs[name]) == 1 else SEVERAL):
        rows = [(name.upper(), shown(fields[name].default), fields[name].description or "") for name in group]
        yield heading[0].upper() + heading[1:], rows


def shown(default: Any) -> str:
    """A default as a line of .env has it."""
    text = default.get_secret_value() if isinstance(default, SecretStr) else "" if default is None else str(default)
    return f"'{text}'" if set(text) & set(" #$'\"") else text


def example() -> str:
    """The text of .env.example."""
    parts = [HEAD]
    for heading, rows in sections():
        parts.append(f"\n# ---- {heading} ----\n\n")
        parts += [f"# {description}\n{name}={default}\n" for name, default, description in rows]
    return "".join(parts)


def document() -> str:
    """The text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable, or a line in `.env` (`cp .env.example .env`). This page and",
        "`.env.example` are made by `make settings` from `agents/settings.py` and from the `SPEC` of each intake,",
        "detector type and channel.",
    ]
    for heading, rows in sections():
        lines += ["", f"## {heading}", "", "| setting | default | |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | {f'`{default}`' if default else 'empty'} | {text} |" for name, default, text in rows]
    lines += [
        "",
        "## Old names",
        "",
        "They work for one release more, with a warning. The environment beats `.env`, whichever name it uses.",
        "",
    ]
    lines += ["| old | new |", "| --- | --- |", *(f"| `{old}` | `{new}` |" for old, new in RENAMED.items())]
    return "\n".join(lines) + "\n"


FILES = {".env.example": example, "docs/settings.md": document}

if __name__ == "__main__":
    for path, text in FILES.items():
        (ROOT / path).write_text(text(), "utf-8")
