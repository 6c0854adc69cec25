"""One file a format: a record as bytes. Text of attackers stays text in each of them."""

from agents.export.formats import cef, ecs, leef, misp, ocsf, plain, rfc5424, stix
from agents.export.formats.base import Format

FORMATS: tuple[Format, ...] = (
    plain.FORMAT,
    ecs.FORMAT,
    ocsf.FINDING,
    ocsf.ACTIVITY,
    cef.FORMAT,
    leef.FORMAT,
    rfc5424.FORMAT,
    stix.FORMAT,
    misp.FORMAT,
)
BY_NAME = {one.name: one for one in FORMATS}
