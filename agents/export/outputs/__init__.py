"""One file a way out: where records go. Each is set up where its first setting is not empty."""

from agents.export.outputs import apprise, elasticsearch, file, kafka, nats, splunk, syslog, webhook
from agents.export.outputs.base import Output

OUTPUTS: tuple[Output, ...] = (
    syslog.SPEC,
    file.SPEC,
    webhook.SPEC,
    elasticsearch.SPEC,
    splunk.SPEC,
    kafka.SPEC,
    nats.SPEC,
    apprise.SPEC,
)
