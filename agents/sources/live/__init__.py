"""Live intakes: what runs at an address or an interface, read at once."""
