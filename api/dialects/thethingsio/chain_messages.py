"""Messages about users, for the tenant's root chain (`G-18`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.dialects.thethingsio.callers import Caller
from api.dialects.thethingsio.settings import DIALECT
from engine.message import Message, new_id, now_ms
from engine.stores.apps.apps import App
from engine.stores.apps.users import User


def message_of(app: App, user: User, type: str, data: Any, about: Mapping[str, str] | None = None) -> Message:
    """A message whose originator is a user of an app."""
    metadata = {"dialect": DIALECT, "transport": "http", "appId": app.id, "userId": user.id, **(about or {})}
    return Message(
        id=new_id(), ts_ms=now_ms(), tenant=app.tenant, type=type, originator=user.id, originator_type="APP_USER",
        data=data, metadata=metadata,
    )  # fmt: skip


def about_user(caller: Caller, type: str, data: Any, about: Mapping[str, str] | None = None) -> Message:
    """The same of whoever calls."""
    return message_of(caller.app, caller.user, type, data, about)
