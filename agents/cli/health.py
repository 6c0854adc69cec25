"""`dns-tunnel health`: whether a process of this DATA_DIR is alive. For health checks: few imports, little work."""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
from pathlib import Path
from typing import Any

from agents.core.text import command, counted
from agents.runtime import heartbeat
from agents.settings import Settings

TIMEOUT_S = 8.0


def health(settings: Settings, options: argparse.Namespace) -> int:
    """Exit 1 unless the part has given a recent sign of life; the API must answer a request now.

    Without a part, all parts that were started on this DATA_DIR and have not ended are checked; exit 1 if there are
    none.
    """
    if options.acknowledge:
        return _acknowledge(settings)
    parts = [options.part] if options.part else [one for one in heartbeat.PARTS if _file(settings, one).exists()]
    if not parts:
        print(f"nothing runs on {settings.data_dir.absolute()}")
    found = [_told(settings, part) for part in parts]
    if lost := heartbeat.detector_health(settings.state_dir)[1].lost_unacknowledged:
        print(f"{counted(lost, 'verdict')} lost; {command('health --acknowledge')} takes note of that")
    return 0 if found and all(found) else 1


def _acknowledge(settings: Settings) -> int:
    from agents.alerting import losses  # here: a health check needs no channels

    lost = max(heartbeat.detector_health(settings.state_dir)[1].lost_in_all, losses.lost_in_all(settings.state_dir))
    print(f"{counted(losses.acknowledge(settings.state_dir, lost), 'lost verdict')} acknowledged")
    return 0


def _told(settings: Settings, part: str) -> bool:
    if part == "api":
        well, bad = _api_answers(settings), f"no answer from {settings.api_host} port {settings.api_port}"
    else:
        well, bad = _has_written(settings, part), "no sign of life"
        if not well and heartbeat.disk_is_full(settings.state_dir):
            bad += f"; the disk of {settings.state_dir} is full"
    print(f"{part}: {'ok' if well else bad}")
    return well


def _file(settings: Settings, part: str) -> Path:
    return settings.state_dir / heartbeat.PARTS[part]


def _has_written(settings: Settings, part: str) -> bool:
    state = heartbeat.read_heartbeat(_file(settings, part))
    return bool(state["ok"] and (part != "listener" or state.get("judging")))


def _api_answers(settings: Settings) -> bool:
    return _asked(settings) is not None


def request_health(settings: Settings) -> dict[str, Any]:
    """What /health of the API says now; empty where it does not answer."""
    try:
        found = json.loads(_asked(settings) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _asked(settings: Settings) -> bytes | None:
    asked = http.client.HTTPConnection(_reachable(settings.api_host), settings.api_port, timeout=TIMEOUT_S)
    try:
        asked.request("GET", "/health")
        answer = asked.getresponse()
        return answer.read() if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        asked.close()


def _reachable(host: str) -> str:
    """The address to connect to: 0.0.0.0 and :: are for binding, and become loopback."""
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
