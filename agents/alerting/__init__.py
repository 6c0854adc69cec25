"""Who gets a message, how often, over which channel.

`learning`, `web`, `runtime` and `cli` may import it; `sources`, `scoring` and `store` stand beside it and may not.
"""

from agents.alerting.manager import AlertManager

__all__ = ["AlertManager"]
