"""Tokens of operators: JWTs as the vendor's clients take them apart (`TB-X5`)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import jwt

from api.device_record import NOBODY, tenant_uuid
from engine.errors import RulemillError
from engine.stores.people import Person, Role

ALGORITHM: Final = "HS256"
ISSUER: Final = "rulemill"
ACCESS_S: Final = 9_000
REFRESH_S: Final = 604_800
"""Two and a half hours and a week: the vendor's own defaults."""
REFRESH_SCOPE: Final = "REFRESH_TOKEN"
MOST_CHARACTERS: Final = 4096

AUTHORITIES: Final[dict[Role, str]] = {"tenant_admin": "TENANT_ADMIN", "customer": "CUSTOMER_USER"}


class WrongToken(RulemillError):
    """Not a token of ours, or not of this kind."""


class ExpiredToken(RulemillError):
    """It was one, until a while ago."""


class Claims(NamedTuple):
    """What a token says: whose it is, of which generation of that person's tokens, and of which login."""

    person: str
    generation: int
    session: str
    expires_s: int


class Tokens:
    """Makes and reads tokens. `clock` gives Unix time in seconds."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = key, clock

    def pair(self, person: Person, session: str = "") -> dict[str, str]:
        """`{"token", "refreshToken"}` for a login, a new one unless `session` names it."""
        session = session or str(uuid.uuid4())
        access = {
            "scopes": [AUTHORITIES[person.role]], "enabled": True, "isPublic": False,
            "tenantId": tenant_uuid(person.tenant), "tenant": person.tenant,
            "customerId": person.id if person.role == "customer" else NOBODY,
        }  # fmt: skip
        refresh = {"scopes": [REFRESH_SCOPE], "isPublic": False, "jti": str(uuid.uuid4())}
        return {
            "token": self._signed(person, session, ACCESS_S, access),
            "refreshToken": self._signed(person, session, REFRESH_S, refresh),
        }

    def _signed(self, person: Person, session: str, life_s: int, more: dict[str, Any]) -> str:
        now = int(self._clock())
        claims = {
            "sub": person.username, "userId": person.id, "sessionId": session, "generation": person.generation,
            "iss": ISSUER, "iat": now, "exp": now + life_s, **more,
        }  # fmt: skip
        return jwt.encode(claims, self._key, ALGORITHM)

    def read(self, token: str, *, refresh: bool = False) -> Claims:
        """What a token says; WrongToken, ExpiredToken. Whether its person still stands by it is the caller's to ask."""
        if len(token) > MOST_CHARACTERS:
            raise WrongToken
        try:
            found = jwt.decode(
                token, self._key, algorithms=[ALGORITHM], issuer=ISSUER,
                options={"require": ["exp", "iat", "sub"], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
            claims = Claims(found["userId"], found["generation"], found["sessionId"], found["exp"])
            of_refresh = found["scopes"] == [REFRESH_SCOPE]
        except (jwt.InvalidTokenError, KeyError, ValueError) as error:
            raise WrongToken from error
        if of_refresh != refresh:
            raise WrongToken
        if claims.expires_s <= self._clock():
            raise ExpiredToken
        return claims
