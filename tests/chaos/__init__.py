"""All faults in random order under load, and whether each promise was kept: `make chaos`."""
