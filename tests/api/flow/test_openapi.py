"""The OpenAPI document is true: whatever is sent, the answers are the ones it describes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.flow.openapi import document
from api.flow.operations import OPERATIONS
from engine.stores.registry import Device
from tests.api.flow.serving import TOKEN, InThread
from tests.api.stack import TENANT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

ENDLESS = {"tail", "tail_points"}
MAY_TIME_OUT = {"call_device"}
"""Without a device that answers, 504 is the right answer."""
REAL = {
    "tenant": TENANT,
    "device": "d1",
    "product": "p1",
    "firmware": "f1",
    "chain": "root",
    "secret": "s1",
    "person": "somebody",
    "scope": "SHARED",
    "alarm": "a1",
    "letter": "l1",
}


@pytest.fixture(scope="module")
def server(redis_server: str) -> Iterator[InThread]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    with InThread(redis_server) as running:
        yield running


@pytest.fixture(scope="module")
def schema(server: InThread) -> Any:
    made = schemathesis.openapi.from_dict(document(OPERATIONS, "0"))
    made.config.update(base_url=server.base)
    return made


async def _prepare(server: InThread) -> None:
    stack = server.stack
    await stack.chains.ensure_default(TENANT)
    await stack.registry.put_device(Device(id="d1", tenant=TENANT, name="d1"))


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.id not in ENDLESS], ids=lambda one: one.id)
def test_answers_are_as_described(operation: Any, server: InThread, schema: Any) -> None:
    server.do(_prepare(server))
    described = schema[operation.path][operation.method]
    names = [name for name in REAL if f"{{{name}}}" in operation.path]
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    if operation.id not in MAY_TIME_OUT:
        checks.append(not_a_server_error)
    cases = [
        described.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters={n: REAL[n] for n in names})
    ]
    if operation.body is not None or operation.query is not None:
        cases.append(
            described.as_strategy(generation_mode=GenerationMode.NEGATIVE, path_parameters={n: REAL[n] for n in names})
        )
    if names:
        cases.append(described.as_strategy(generation_mode=GenerationMode.POSITIVE))
    seen: set[int] = set()

    @settings(
        max_examples=20 * len(cases), deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(cases))
    def check(case: Any) -> None:
        if operation.id in MAY_TIME_OUT and isinstance(case.body, dict) and not case.body.get("oneway"):
            case.body["timeout_ms"] = 1
        # Bad examples may also be of the header; what a wrong token gives is tested elsewhere.
        case.headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = case.call()
        if len(answer.request.url or "") < 60_000:  # longer heads are the transport's to refuse
            case.validate_response(answer, checks=checks)
        seen.add(answer.status_code)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()
    assert 401 not in seen


def test_the_document_itself_holds() -> None:
    from jsonschema import Draft202012Validator

    made = document(OPERATIONS, "1")
    for name, component in made["components"]["schemas"].items():
        Draft202012Validator.check_schema(component)
        assert name.isidentifier(), name
    ids = [one.id for one in OPERATIONS]
    assert len(set(ids)) == len(ids)
    text = str(made)
    references = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= made["components"]["schemas"].keys()
