"""Blocks with brakes: who makes them, what they may never hit, and how resolvers learn of them.

Off unless ENFORCE says otherwise. `runtime` and `cli` may import it; `learning` and `web` stand beside it and may not.
"""

from agents.enforcement.keeper import BlockKeeper
from agents.enforcement.options import SPEC, EnforceOptions

__all__ = ["SPEC", "BlockKeeper", "EnforceOptions"]
