"""ThingsBoard's API for people, put together from the process's parts."""

from __future__ import annotations

import redis.asyncio as redis

from api.accounts import Accounts
from api.dialects.thingsboard.http_claims import UserClaims
from api.dialects.thingsboard.operator_access import Access
from api.dialects.thingsboard.operator_rpc import OperatorRpc
from api.dialects.thingsboard.operator_telemetry import OperatorTelemetry
from api.dialects.thingsboard.operators import OperatorHttp
from api.dialects.thingsboard.parts import Parts
from api.dialects.thingsboard.tokens import Tokens
from api.server_messages import ServerMessages
from engine.stores.kept_calls import KeptCalls
from engine.stores.timeseries import Timeseries


def compose(
    parts: Parts,
    *,
    redis: redis.Redis,
    accounts: Accounts,
    signing_key: bytes,
    messages: ServerMessages,
    kept: KeptCalls,
    store: Timeseries,
) -> OperatorHttp:
    """All that people may call. `signing_key` is that of their tokens, `messages` speak in the dialect's name."""
    tokens = Tokens(signing_key)
    access = Access(accounts.people, tokens, parts.auth, redis)
    may = (
        UserClaims(parts, access.caller), OperatorRpc(access, messages, parts.replies, kept),
        OperatorTelemetry(access, messages, parts.attributes, store),
    )  # fmt: skip
    return OperatorHttp(access, accounts, tokens, parts.registry, [route for each in may for route in each.routes])
