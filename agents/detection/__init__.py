"""Detection of data that leaves below a domain over time: flows, windows, limits, incidents, evidence.

`learning`, `web`, `runtime` and `cli` may import it.
"""

from agents.detection.detector import TunnelDetector as Detector
from agents.detection.known_services import KnownServices
from agents.detection.limits import Limits

__all__ = ["Detector", "KnownServices", "Limits"]
