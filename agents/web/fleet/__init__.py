"""Requests of a fleet's sites, for the installation that coordinates them."""
