"""The console's own routes: triage of incidents, hunting, what is going on now, and who did what."""
