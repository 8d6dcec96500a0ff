"""Paths and blocks of CoAP, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.transports.coap import INCOMPLETE, METHOD_NOT_ALLOWED, NOT_FOUND, TOO_LARGE, CoapError, Route, find
from api.transports.coap_blocks import Assemblies


async def nothing(request, names):
    raise AssertionError


class Things:
    max_body = 10

    def __init__(self, *routes):
        self.routes = routes

    async def admit(self, request, names):
        raise AssertionError


ROUTES = (
    Route("POST", "/v1/{id}/data", nothing),
    Route("GET", "/v1/{id}/data", nothing),
    Route("POST", "/v1/{id}/events/{event}", nothing),
)
OTHER = Route("GET", "/v2/{id}/data", nothing)
SURFACES = (Things(*ROUTES), Things(OTHER))


def test_a_path_is_found_with_what_its_braces_stand_for():
    first, second = SURFACES
    assert find(SURFACES, "GET", ("v1", "d", "data")) == (first, ROUTES[1], {"id": "d"})
    assert find(SURFACES, "POST", ("v1", "d", "events", "a/b")) == (first, ROUTES[2], {"id": "d", "event": "a/b"})
    assert find(SURFACES, "POST", ("v1", "d", "data", "")) == (first, ROUTES[0], {"id": "d"})
    assert find(SURFACES, "GET", ("v2", "d", "data")) == (second, OTHER, {"id": "d"})


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", ("v1", "d"), NOT_FOUND),
        ("GET", (), NOT_FOUND),
        ("POST", ("v1", "", "data"), NOT_FOUND),
        ("PUT", ("v1", "d", "data"), METHOD_NOT_ALLOWED),
        ("GET", ("v1", "d", "events", "e"), METHOD_NOT_ALLOWED),
        ("POST", ("v2", "d", "data"), METHOD_NOT_ALLOWED),
    ],
)
def test_a_path_that_is_not_there_and_a_method_that_is_not(method, path, code):
    with pytest.raises(CoapError) as error:
        find(SURFACES, method, path)
    assert error.value.code == code


def send(assemblies, body, size, key="k", limit=10_000):
    found = None
    for start in range(0, max(len(body), 1), size):
        found = assemblies.add(key, start, body[start : start + size], start + size < len(body), limit)
    return found


@given(st.binary(max_size=300), st.sampled_from([16, 32, 64]))
def test_blocks_make_the_body_they_were_cut_from(body, size):
    assemblies = Assemblies()
    assert send(assemblies, body, size) == body
    assert len(assemblies) == 0


def test_a_missing_block_is_4_08_and_the_body_begins_anew():
    assemblies = Assemblies()
    assert assemblies.add("k", 0, b"a" * 16, True, 100) is None
    with pytest.raises(CoapError) as error:
        assemblies.add("k", 32, b"b" * 16, True, 100)
    assert error.value.code == INCOMPLETE
    with pytest.raises(CoapError):
        assemblies.add("k", 16, b"b" * 16, True, 100)
    assert send(assemblies, b"c" * 40, 16) == b"c" * 40


def test_a_body_over_the_limit_is_4_13_and_nothing_of_it_stays():
    assemblies = Assemblies()
    with pytest.raises(CoapError) as error:
        send(assemblies, b"x" * 100, 16, limit=64)
    assert error.value.code == TOO_LARGE
    assert len(assemblies) == 0
    assert send(assemblies, b"x" * 64, 16, limit=64) == b"x" * 64


def test_unfinished_bodies_have_a_bound_and_the_oldest_goes_first():
    assemblies = Assemblies(most_bytes=64)
    for key in ("one", "two", "three", "four", "five"):
        assert assemblies.add(key, 0, b"x" * 16, True, 1000) is None
    assert len(assemblies) == 4
    with pytest.raises(CoapError):
        assemblies.add("one", 16, b"y", False, 1000)
    assert assemblies.add("five", 16, b"y", False, 1000) == b"x" * 16 + b"y"
