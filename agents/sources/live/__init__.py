"""Live intakes: what arrives at an address or an interface is read at once, and put into a ring that never waits."""
