"""Topic filters: validity and matching, with the protocol's own examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.transports.mqtt.topics import Subscriptions, filter_fault, matches, topic_fault


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("#", "/", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/b", "a/b", True),
        ("a/b", "A/b", False),
        ("a/b", "a/b/", False),
        ("+/+/#", "a", False),
        ("+/+/#", "a/b", True),
    ],
)
def test_matching(topic_filter, topic, taken):
    assert matches(topic_filter, topic) is taken


@pytest.mark.parametrize("good", ["#", "+", "a", "/", "a/+/b", "+/#", "a/#", "$share/g/a", "a b/é"])
def test_good_filters(good):
    assert filter_fault(good) == ""


@pytest.mark.parametrize("bad", ["", "a#", "a/#/b", "#/a", "+a", "a/b+/c", "a/##", "a\0"])
def test_bad_filters(bad):
    assert filter_fault(bad) != ""


@pytest.mark.parametrize("bad", ["", "+", "a/#", "a\0"])
def test_bad_topics(bad):
    assert topic_fault(bad) != ""


levels = st.sampled_from(["a", "b", "", "$c"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.tuples(st.lists(levels | st.just("+"), max_size=3), st.booleans())
    .map(lambda made: "/".join([*made[0], "#"] if made[1] else made[0]))
    .filter(lambda text: not filter_fault(text))
)


@given(st.dictionaries(filters, st.integers(0, 1), max_size=5), st.lists(filters, max_size=2), topics)
def test_a_session_finds_the_highest_qos_of_its_filters(wanted, given_up, topic):
    subscriptions = Subscriptions()
    for name, qos in wanted.items():
        subscriptions.add(name, qos)
    for name in given_up:
        assert subscriptions.remove(name) is (name in wanted)
        wanted.pop(name, None)
    assert len(subscriptions) == len(wanted)
    assert subscriptions.qos_for(topic) == max((q for name, q in wanted.items() if matches(name, topic)), default=-1)
