"""What runs in a process that judges: batches out of the stream are judged, stored and alerted."""
