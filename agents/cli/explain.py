"""`dns-tunnel explain`: prints an incident's evidence."""

from __future__ import annotations

import argparse
import time

from agents.cli.output import evidence_text, incident_text
from agents.core.errors import AgentsError
from agents.core.text import printable, refang, utc
from agents.runtime import bootstrap
from agents.settings import Settings


def explain(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel explain`."""
    store = bootstrap.store_of(settings)
    store.migrate()
    incident = store.incident(options.client, refang(options.domain).rstrip(".").lower())
    if incident is None:
        where = f"DATA_DIR is {settings.data_dir.absolute()}"
        raise AgentsError(f"cannot explain {options.client} {options.domain}: there is no such incident ({where})")
    print(incident_text(incident))
    print(evidence_text(incident.evidence))
    times = (("first seen", incident.first_seen), ("found", incident.detected_at), ("last seen", incident.last_seen))
    for what, at in times:
        print(f"  {what:<10} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))} UTC")
    if incident.imported_at is not None:
        print(f"  replayed   {utc(incident.imported_at)} from {printable(incident.source)}: not seen live")
    print(f"  {'closed' if incident.closed_at else 'still open'}")
    return 0
