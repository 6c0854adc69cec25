"""dns-tunnel-detector: finds data leaving through DNS. The map of the package is agents/README.md."""

__version__ = "0.2.0"
