"""The JSON API and a plain console over store, registry and reports."""

from agents.web.app import Parts, create_app

__all__ = ["Parts", "create_app"]
