"""`dns-tunnel health`: is one process of this DATA_DIR well? For health checks: few imports, little work."""

from __future__ import annotations

import argparse
import http.client
import ipaddress
from pathlib import Path

from agents.runtime import heartbeat
from agents.settings import Settings

TIMEOUT_S = 3.0


def health(settings: Settings, options: argparse.Namespace) -> int:
    """Exit 1 unless the part has given a sign of life lately; the API has to answer here and now.

    Without a part: all that have begun on this DATA_DIR and not ended; exit 1 where there are none.
    """
    parts = [options.part] if options.part else [one for one in heartbeat.PARTS if _file(settings, one).exists()]
    if not parts:
        print(f"nothing runs on {settings.data_dir.absolute()}")
    found = [_told(settings, part) for part in parts]
    return 0 if found and all(found) else 1


def _told(settings: Settings, part: str) -> bool:
    if part == "api":
        well, bad = _api_answers(settings), f"no answer from {settings.api_host} port {settings.api_port}"
    else:
        well, bad = _has_written(settings, part), "no sign of life"
    print(f"{part}: {'ok' if well else bad}")
    return well


def _file(settings: Settings, part: str) -> Path:
    return settings.state_dir / heartbeat.PARTS[part]


def _has_written(settings: Settings, part: str) -> bool:
    state = heartbeat.read_heartbeat(_file(settings, part))
    return bool(state["ok"] and (part != "listener" or state.get("judging")))


def _api_answers(settings: Settings) -> bool:
    asked = http.client.HTTPConnection(_reachable(settings.api_host), settings.api_port, timeout=TIMEOUT_S)
    try:
        asked.request("GET", "/health")
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


def _reachable(host: str) -> str:
    """0.0.0.0 and :: are for binding; from here they mean loopback."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
