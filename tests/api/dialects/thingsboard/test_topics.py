"""The table of a session's topics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.thingsboard.device_topics import DEVICE
from api.dialects.thingsboard.topics import Down, Topics, Verdict
from api.transports.mqtt.dialect import Accepted


def _nothing(session: object, body: bytes, numbers: tuple[int, ...]) -> Verdict:
    return Accepted()


def _chunk(session: object, body: bytes, numbers: tuple[int, ...]) -> Verdict:
    return Accepted()


TOPICS = Topics(
    {"v2/t": _nothing, "v2/fw/request/+/chunk/+": _chunk},
    {"v2/a": Down.UPDATES, "v2/fw/response/+/chunk/+": Down.ANSWERS},
)


@pytest.mark.spec("TB-X1")
def test_numbers_of_a_topic_are_given_to_its_handler() -> None:
    assert TOPICS.handler("v2/t") == (_nothing, ())
    assert TOPICS.handler("v2/fw/request/7/chunk/0") == (_chunk, (7, 0))
    for other in ("v2/t/", "v2/fw/request/7", "v2/fw/request/x/chunk/0", "v2/fw/request/\u0667/chunk/0"):
        assert TOPICS.handler(other)[0] is None, other
    assert TOPICS.handler("v2/fw/request/1111111111111111111/chunk/0")[0] is None


@pytest.mark.spec("TB-X1", "G-10")
def test_filters_may_name_a_number_or_leave_it_open() -> None:
    for good in ("v2/fw/response/+/chunk/+", "v2/fw/response/1/chunk/+", "v2/fw/response/+/chunk/#"):
        assert TOPICS.subscription(good) is Down.ANSWERS
    assert TOPICS.subscription("v2/a") is Down.UPDATES
    for bad in ("v2/a/#", "#", "v2/#", "v2/fw/response/#", "v2/fw/response/x/chunk/0", ""):
        assert TOPICS.subscription(bad) is None, bad


@given(st.text(max_size=40))
def test_no_filter_but_the_devices_own_is_for_anything(topic_filter: str) -> None:
    if not topic_filter.startswith(("v1/devices/me/", "v2/")):
        assert DEVICE.subscription(topic_filter) is None
        assert DEVICE.handler(topic_filter)[0] is None
    assert DEVICE.subscription("v1/devices/me/rpc/request/+") is Down.COMMANDS
