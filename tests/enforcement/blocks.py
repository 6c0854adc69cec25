"""Blocks as test material."""

from __future__ import annotations

import time
from typing import Any

from agents.core.text import NETWORK
from agents.dns.blocks import Block, BlockAction


def block(domain: str, client: str = NETWORK, action: str = "nxdomain", **changed: Any) -> Block:
    """A block of an hour, for all clients."""
    values: dict[str, Any] = {"block_id": f"{domain}{client}", "reason": "a test", "author": "ann"}
    values |= {"began_at": time.time(), "until": time.time() + 3600} | changed
    return Block(domain=domain, client=client, action=BlockAction(action), **values)
