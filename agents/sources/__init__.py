"""Where queries come from: the listener (live) and captures (replay)."""
