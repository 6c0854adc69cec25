"""Hunts over months: what is kept for longer than the rows of the database, in SQL and by name."""
