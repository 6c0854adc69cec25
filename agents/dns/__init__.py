"""Names and messages (RFC 1035): text, wire, registered domain.

Every room but `core` may import it.
"""

from agents.dns.message import parse_question
from agents.dns.name import from_text, split_domain

__all__ = ["from_text", "parse_question", "split_domain"]
