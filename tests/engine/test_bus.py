"""To whom an answer goes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.bus import call_name, caller_of
from tests.engine.toy import message

IDS = {"serviceId": "process", "sessionId": "s", "requestId": "7"}


@pytest.mark.spec("TB-S23")
def test_a_message_finds_the_caller_that_waits_for_it_or_whose_call_it_names() -> None:
    named = message("d", {}, metadata=IDS)
    assert caller_of(named) == f"process/{call_name(named.tenant, 's', '7')}"
    assert caller_of(replace(named, reply_to="other/1")) == "other/1"
    for missing in IDS:
        assert caller_of(replace(named, metadata={key: IDS[key] for key in IDS if key != missing})) == ""


@pytest.mark.spec("TB-S23")
def test_a_call_of_another_tenant_cannot_be_named() -> None:
    named = message("d", {}, metadata=IDS)
    assert caller_of(replace(named, tenant="other")) != caller_of(named)
