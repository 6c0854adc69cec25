"""`dns-tunnel health`: is one process of this DATA_DIR well? For health checks: few imports, little work."""

from __future__ import annotations

import argparse
import http.client
import ipaddress

from agents import heartbeat
from agents.settings import Settings

TIMEOUT_S = 3.0


def health(settings: Settings, options: argparse.Namespace) -> int:
    """Exit 1 unless the part has given a sign of life lately; the API has to answer here and now."""
    well = _api_answers(settings) if options.part == "api" else _has_written(settings, options.part)
    print(f"{options.part}: {'ok' if well else 'no sign of life'}")
    return 0 if well else 1


def _has_written(settings: Settings, part: str) -> bool:
    state = heartbeat.read(settings.state_dir / f"{part}.json")
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
