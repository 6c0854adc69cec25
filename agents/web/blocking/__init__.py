"""Blocks at the console and over the API."""
