"""What `doctor` says of logs that are followed and of live intakes: what was heard, what was lost, what is not kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agents.core.errors import AgentsError
from agents.core.text import counted, printable
from agents.runtime.heartbeat import STALE_S, detector_health
from agents.runtime.listener_process import COLLECTOR, RECEIVER
from agents.settings import Settings
from agents.sources.collector import collected, queries_since
from agents.sources.live.loss import LOSS_ALARM, lost_share
from agents.sources.origins import KINDS, losses_of_intake

_LIVE = {
    "dnstap": "dnstap, live",
    "powerdns": "PowerDNS' protobuf, live",
    "syslog": "a syslog server",
    "packet": "packets of an interface",
}
_COUNTS = {
    "malformed": "could not be read",
    "nameless": "queries without a name",
    "lost": "lines missing",
    "dropped": "found no room in the kernel",
    "refused": "senders refused",
    "passed_over": "lines of other programs",
    "late": "frames later than 2.5 s",
    "ahead": "frames with a time ahead of this machine's",
}


def intakes_text(settings: Settings) -> str:
    """What was heard from each source, and what it does not keep. Raises AgentsError where one is not heard whole."""
    found, now = collected(settings.state_dir), time.time()
    alive, state = detector_health(settings.state_dir)
    fresh = collected(settings.state_dir, STALE_S)
    ill = not fresh and alive and bool({COLLECTOR, RECEIVER} & set(state.processes))
    if not found and not ill:
        return "none is followed (COLLECT_FILES, dns-tunnel collect)"
    texts = [] if fresh else ["no collector hears them at present"]
    for name, one in (fresh or found).items():
        texts.append(f"{printable(name)}: {_said(one, now)}")
        ill |= bool(one.get("error")) or lost_share(one) > LOSS_ALARM
    if ill:
        raise AgentsError(f"cannot hear all intakes: {' | '.join(texts)}")
    return " | ".join(texts)


def _said(one: Mapping[str, Any], now: float) -> str:
    name, lines = str(one.get("kind", "")), _texts(one.get("lines"))
    kind, heard = KINDS.get(name), [KINDS[line] for line in lines if line in KINDS]
    is_live = "senders" in one
    what = _LIVE.get(name, name) if is_live else kind.summary if kind else "of a kind not known yet"
    text = f"{what}{' of ' + ', '.join(spec.summary for spec in heard) if heard else ''}; "
    text += ", ".join(f"{counted(queries_since(one, hours, now), 'query')} in {hours} h" for hours in (1, 24))
    text += f"; {counted(one['connections'], 'connection')} now" if one.get("connections") else ""
    text += "".join(f"; {words}: {one[count]}" for count, words in _COUNTS.items() if one.get(count))
    text += f" (the first: {printable(one['first_bad'])})" if one.get("first_bad") else ""
    senders = one.get("senders")
    text += "".join(_of_sender(sender, told) for sender, told in (senders.items() if isinstance(senders, dict) else ()))
    text += f"; cannot be read: {printable(one['error'])}" if one.get("error") else ""
    return text + "".join(f"; {loss}" for _, loss in losses_of_intake(one))


def _texts(found: object) -> Sequence[str]:
    return [str(one) for one in found] if isinstance(found, list) else []


def _of_sender(name: str, told: Mapping[str, Any]) -> str:
    """What a sender lost in the last minute."""
    if not told.get("known"):
        return f"; {printable(name)}: loss not known"
    text = f"; {printable(name)}: {told['lost']:.2%} lost"
    return text + (f", {told['unanswered']:.2%} without an answer" if told.get("unanswered") else "")
