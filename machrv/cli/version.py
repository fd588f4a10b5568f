"""Which version this is."""

from __future__ import annotations


def version() -> str:
    """As pyproject.toml says it: there is no second place."""
    from importlib import metadata  # Late: few ask.

    try:
        return metadata.version("machrv")
    except metadata.PackageNotFoundError:
        return "unknown"
