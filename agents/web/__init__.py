"""API and console over protocols.

`runtime` may import it; `learning` is on the same layer and may not.
"""

from agents.web.app import create_app
from agents.web.parts import Parts

__all__ = ["Parts", "create_app"]
