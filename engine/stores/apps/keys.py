"""Where an app's things stand in Redis."""

from __future__ import annotations


def app_key(app: str, *names: str) -> str:
    """A key of an app; all of one app may be touched by one transaction."""
    return f"rm:{{app-{app}}}:" + ":".join(names)


def text(raw: bytes | str) -> str:
    """What Redis gave, as text."""
    return raw.decode() if isinstance(raw, bytes) else raw
