"""The settings of enforcement: off by default, counting alone with dry-run."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from agents.core.errors import NameFormatError, SettingsError
from agents.core.protocols import Field, Spec, Within
from agents.dns.blocks import BlockAction
from agents.dns.name import from_text, to_text


class EnforceMode(StrEnum):
    """What ENFORCE says."""

    OFF = "off"
    DRY_RUN = "dry-run"
    ON = "on"


@dataclass(frozen=True, slots=True)
class EnforceOptions:
    """What is blocked by itself, for how long, how often. never: domains in lower-case presentation form.

    people_alone: why nothing is blocked without a person, "" = it may be.
    """

    mode: EnforceMode = EnforceMode.OFF
    action: BlockAction = BlockAction.NXDOMAIN
    for_all: bool = False
    hours: float = 24.0
    per_hour: int = 5
    dry_days: float = 7.0
    popular: int = 5
    never: tuple[str, ...] = ()
    sinkhole: tuple[str, ...] = ()
    list_file: Path | None = None
    people_alone: str = ""


def domains_of(text: str) -> tuple[str, ...]:
    """Domains of a setting, comma-separated. Raises ValueError."""
    try:
        found = [to_text(from_text(one.strip().rstrip(".").lower())) for one in text.split(",") if one.strip()]
    except NameFormatError as error:
        raise ValueError(str(error)) from None
    return tuple(dict.fromkeys(found))


def _addresses(text: str) -> Sequence[str]:
    return tuple(str(ipaddress.ip_address(one.strip())) for one in text.split(",") if one.strip())


def _made(values: Mapping[str, Any]) -> EnforceOptions:
    """Raises SettingsError for a sinkhole without an address."""
    action, sinkhole = BlockAction(values["enforce_action"]), tuple(_addresses(values["enforce_sinkhole"]))
    if action == BlockAction.SINKHOLE and not sinkhole:
        raise SettingsError("cannot use setting ENFORCE_ACTION=sinkhole: ENFORCE_SINKHOLE names no address")
    return EnforceOptions(
        mode=EnforceMode(values["enforce"]),
        action=action,
        for_all=values["enforce_scope"] == "all",
        hours=values["enforce_hours"],
        per_hour=values["enforce_per_hour"],
        dry_days=values["enforce_dry_days"],
        popular=values["enforce_popular"],
        never=domains_of(values["enforce_never"]),
        sinkhole=sinkhole,
        list_file=Path(values["enforce_list_file"]) if values["enforce_list_file"] else None,
    )


SPEC: Spec[EnforceOptions] = Spec(
    name="enforcement",
    summary="blocks of confirmed tunnels, with brakes (docs/enforcement.md)",
    fields=(
        Field(
            "enforce",
            Literal["off", "dry-run", "on"],
            "off",
            "off = nothing is blocked; dry-run = it is counted what would be; on = tunnels are blocked",
        ),
        Field(
            "enforce_action",
            Literal["nxdomain", "refused", "sinkhole", "slow"],
            "nxdomain",
            "what a blocked query gets: no such name, refused, addresses of ENFORCE_SINKHOLE, or an answer a second",
        ),
        Field(
            "enforce_scope",
            Literal["client", "all"],
            "client",
            "whom a tunnel's domain is blocked for: its client, or all (RPZ knows all alone)",
        ),
        Field("enforce_hours", float, 24.0, "hours after which a block ends by itself", Within(0.01, 8760)),
        Field(
            "enforce_per_hour",
            int,
            5,
            "blocks an hour that are made without a person; at the next one it stops, and the channels are told",
            Within(1, 1000),
        ),
        Field(
            "enforce_dry_days",
            float,
            7.0,
            "days of counting alone before anything is blocked without a person",
            Within(0, 365),
        ),
        Field(
            "enforce_popular",
            int,
            5,
            "a domain that so many clients asked for in the last seven days is not blocked without a person",
            Within(2, 1_000_000),
        ),
        Field(
            "enforce_never",
            str,
            "",
            "domains that are never blocked, comma-separated, nor what is below or above them",
            domains_of,
        ),
        Field("enforce_sinkhole", str, "", "addresses that ENFORCE_ACTION=sinkhole answers with", _addresses),
        Field("enforce_list_file", str, "", "file to which all blocks in force are written as text, for dnsdist"),
    ),
    factory=_made,
)
