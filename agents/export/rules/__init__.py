"""Rules to take away: one file a kind, each renders the tunnels that are to be found or blocked elsewhere."""

from agents.export.rules import rpz, sigma, suricata, zeek
from agents.export.rules.base import RuleKind

RULES: tuple[RuleKind, ...] = (sigma.KIND, suricata.KIND, zeek.KIND, rpz.KIND)
RULES_BY_NAME = {one.name: one for one in RULES}
