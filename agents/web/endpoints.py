"""The OpenAPI document as a list for people, each endpoint with a command to try."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method; parameters as (name, description)."""

    method: str
    path: str
    summary: str
    description: str
    parameters: list[tuple[str, str]]
    curl: str


def endpoints(openapi: dict[str, Any], base_url: str) -> list[Endpoint]:
    """Every endpoint of the document, in its order."""
    return [
        _endpoint(method.upper(), path, operation, base_url)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]


def _endpoint(method: str, path: str, operation: dict[str, Any], base_url: str) -> Endpoint:
    parameters = operation.get("parameters", [])
    return Endpoint(
        method,
        path,
        operation.get("summary", ""),
        operation.get("description", ""),
        [(parameter["name"], parameter.get("description", "")) for parameter in parameters],
        _curl(method, base_url + _filled(path, parameters), "security" in operation),
    )


def _filled(path: str, parameters: list[dict[str, Any]]) -> str:
    for parameter in parameters:
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(str(_example(parameter))))
    return path


def _example(parameter: dict[str, Any]) -> Any:
    return next(iter(parameter["schema"].get("examples", [parameter["name"]])))


def _curl(method: str, url: str, token: bool) -> str:
    words = ["curl", *(["-X", method] if method != "GET" else [])]
    header = ' -H "Authorization: Bearer $API_TOKEN"' if token else ""
    return f"{shlex.join(words)}{header} {shlex.quote(url)}"
