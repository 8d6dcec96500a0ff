"""`rulemill person`, and the login that a demo tells, on a served demo."""

from __future__ import annotations

import httpx

from tests.api.cli.serving import Demo


def log_in(demo: Demo, username: str, password: str) -> httpx.Response:
    return httpx.post(f"{demo.facts['http']}/api/auth/login", json={"username": username, "password": password})


def test_the_demo_tells_a_login_that_works(demo: Demo) -> None:
    operator = demo.facts["operator"]
    answer = log_in(demo, operator["username"], operator["password"])
    assert answer.status_code == 200
    headers = {"X-Authorization": f"Bearer {answer.json()['token']}"}
    device = demo.facts["devices"]["thingsboard"]["id"]
    shown = httpx.get(f"{demo.facts['http']}/api/device/{device}", headers=headers)
    assert shown.json()["name"] == "demo-thermometer"


def test_a_person_from_beginning_to_end(demo: Demo) -> None:
    ran = demo("person", "add", "bob", "--role", "customer", text="secret-1\n")
    assert ran.out.startswith("Made bob, id "), ran.err
    assert log_in(demo, "bob", "secret-1").status_code == 200
    assert ["bob", "customer"] in [row[:2] for row in demo("person", "list").rows]
    assert demo("person", "show", "BOB", "--json").json["role"] == "customer"
    assert demo("person", "password", "bob", text="secret-2").code == 0
    assert log_in(demo, "bob", "secret-1").status_code == 401
    assert demo("person", "disable", "bob").out == "Disabled bob.\n"
    assert ["bob", "(disabled)"] in [row[:2] for row in demo("person", "list").rows]
    assert log_in(demo, "bob", "secret-2").json()["message"] == "User account is not active"
    assert demo("person", "enable", "bob").code == 0
    assert log_in(demo, "bob", "secret-2").status_code == 200
    assert demo("person", "delete", "bob", "--yes").out == "Deleted bob.\n"
    assert demo("person", "show", "bob").err == "rulemill: no person 'bob'\n"


def test_what_will_not_do_is_one_line(demo: Demo) -> None:
    ran = demo("person", "add", "eve", text="short")
    assert (ran.code, ran.err) == (1, "rulemill: /password: a password has 6 to 1000 characters\n")
