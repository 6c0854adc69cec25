"""Our own JSON: the incident as API and `replay --json` give it."""

from __future__ import annotations

from agents.export.formats.base import Format, line

FORMAT = Format("json", "our own JSON, as the API's", lambda record: line(record.to_json()))
