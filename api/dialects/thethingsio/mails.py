"""What users are told by mail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine.stores.apps.users import User


class Letter(NamedTuple):
    """To whom, and what."""

    to: str
    subject: str
    text: str


def grant_notice(giver: User, friend: str, wanted: Mapping[str, Mapping[str, Mapping[str, bool]]]) -> Letter:
    """Tells the giver what was done in their name (`TTI-24`): who, which resource of which thing, which rights."""
    lines = [
        f"  {resource} of {thing}: "
        + ", ".join(f"{name} {'granted' if on else 'withdrawn'}" for name, on in asked.items())
        for thing, resources in wanted.items()
        for resource, asked in resources.items()
    ]
    text = "\n".join(
        [f"You have changed what {friend} may do:", "", *lines, "", "To take it back, grant it again with false."]
    )
    return Letter(giver.email, f"Permissions of {friend}", text + "\n")
