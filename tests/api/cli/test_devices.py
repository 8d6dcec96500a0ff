"""`rulemill device`, on a served demo."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import httpx

from tests.api.cli.serving import Demo
from tests.certificates import issued

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")


class TestDevice:
    def test_its_credential_is_told_once_and_works(self, demo: Demo) -> None:
        ran = demo("device", "add", "told-once")
        assert ran.code == 0, ran.err
        made, secret, once, curl = ran.out.splitlines()
        kind, token = secret.split()
        assert made.startswith("Made device told-once, id ")
        assert (kind, once) == ("ACCESS_TOKEN", "This is not shown again.")
        assert curl.endswith(f"{demo.facts['http']}/api/v1/{token}/telemetry")
        demo.send(token, {"a": 1})
        assert token not in demo("device", "show", "told-once", "--json").out

    def test_credentials_of_ones_choice(self, demo: Demo) -> None:
        assert demo.new_device("own", "--token", "OWN-TOKEN-1") == "OWN-TOKEN-1"
        demo.send("OWN-TOKEN-1", {"a": 1})
        made = demo("device", "add", "ct-1", "--ct-token", "C" * 32, "--product", "demo-sensor", "--json").json
        assert (made["credentials"], made["external_id"], made["product"]) == (["CT_TOKEN"], "ct-1", "demo-sensor")
        assert made["secrets"][0]["value"] == "C" * 32
        basic = demo("device", "add", "plc", "--kind", "mqtt-basic", "--username", "plc", "--password", "p", "--json")
        assert basic.json["secrets"] == [{"kind": "MQTT_BASIC", "value": "p", "username": "plc", "client_id": ""}]

    def test_credentials_that_do_not_fit(self, demo: Demo) -> None:
        for given, reason in (
            (("--token", "a", "--ct-token", "b"), "one credential"),
            (("--kind", "ct-token", "--token", "a"), "one credential"),
            (("--kind", "mqtt-basic"), "needs --username or --client-id"),
            (("--username", "a"), "go with --kind mqtt-basic"),
            (("--token", ""), "cannot be empty"),
            (("--kind", "x509"), "needs --certificate"),
            (("--certificate", __file__, "--token", "a"), "one credential"),
            (("--certificate", "no-such-file"), "No such file"),
        ):
            ran = demo("device", "add", "misfit", *given)
            assert (ran.code, reason in ran.err) == (2, True), ran
        assert demo("device", "show", "misfit").err == "rulemill: no device 'misfit'\n"

    def test_a_certificate_of_its_own(self, demo: Demo, tmp_path: Path) -> None:
        made, key = issued("meter").write(tmp_path, "meter")
        ran = demo("device", "add", "meter", "--certificate", made)
        assert (ran.code, "BEGIN" in ran.out) == (0, False), ran.err
        assert demo("device", "show", "meter", "--json").json["credentials"] == ["X509_CERTIFICATE"]
        assert "another device has the credential" in demo("device", "add", "meter-2", "--certificate", made).err
        assert "must be a certificate" in demo("device", "add", "meter-3", "--certificate", key).err
        assert "has no credential that could be renewed" in demo("device", "token", "meter").err

    def test_a_name_that_is_taken(self, demo: Demo) -> None:
        demo.new_device("taken")
        ran = demo("device", "add", "taken")
        assert (ran.code, ran.out, ran.err) == (1, "", "rulemill: another device has the name 'taken'\n")

    def test_by_name_external_id_and_id(self, demo: Demo) -> None:
        made = demo("device", "add", "called", "--external-id", "CALLED-1", "--json").json
        for name in ("called", "CALLED-1", made["id"]):
            ran = demo("device", "show", name)
            assert ["id", made["id"]] in [line.split() for line in ran.out.splitlines()]
        assert demo("device", "show", "..").err == "rulemill: no device '..'\n"
        assert "a name cannot be empty" in demo("device", "show", "").err
        assert "has a slash" in demo("device", "show", "a/b").err

    def test_list(self, demo: Demo) -> None:
        demo("tenant", "add", "listed")
        for n in range(3):
            demo("device", "add", f"of-list-{n}", "--tenant", "listed")
        ran = demo("device", "list", "--tenant", "listed")
        assert [row[0] for row in ran.rows] == ["of-list-0", "of-list-1", "of-list-2"]
        assert ISO.fullmatch(ran.rows[0][-1])
        cut = demo("device", "list", "--tenant", "listed", "--limit", "2", "--json")
        assert [one["name"] for one in cut.json] == ["of-list-0", "of-list-1"]
        assert "more than 2" in cut.err

    def test_an_empty_list_says_what_to_do(self, demo: Demo) -> None:
        demo("tenant", "add", "empty")
        assert "rulemill device add NAME" in demo("device", "list", "--tenant", "empty").out
        assert demo("device", "list", "--tenant", "empty", "--json").json == []

    def test_a_fresh_token_makes_the_old_one_void(self, demo: Demo) -> None:
        old = demo.new_device("rotated")
        demo.send(old, {"a": 1})
        new = demo("device", "token", "rotated").out.split()[1]
        demo.send(new, {"a": 2})
        answer = httpx.post(f"{demo.facts['http']}/api/v1/{old}/telemetry", json={"a": 3})
        assert answer.status_code == 401

    def test_delete_wants_a_yes(self, demo: Demo) -> None:
        demo.new_device("doomed")
        ran = demo("device", "delete", "doomed")
        assert (ran.code, "Say --yes" in ran.err) == (1, True)
        assert demo("device", "delete", "doomed", "--yes").out == "Deleted doomed.\n"
        assert demo("device", "show", "doomed").code == 1

    def test_attributes(self, demo: Demo) -> None:
        demo.new_device("attributed")
        ran = demo("device", "attributes", "attributed", "--set", "target=21.5", "--set", "mode=eco", "--set", "x=[1]")
        assert [row[:3] for row in ran.rows] == [
            ["shared", "mode", '"eco"'], ["shared", "target", "21.5"], ["shared", "x", "[1]"],
        ]  # fmt: skip
        ran = demo("device", "attributes", "attributed", "--scope", "server", "--set", "note=hi", "--json")
        assert {key: one["value"] for key, one in ran.json["SERVER"].items()} == {"note": "hi"}
        left = demo("device", "attributes", "attributed", "--delete", "mode", "--delete", "x", "--json").json
        assert (sorted(left["SHARED"]), sorted(left["SERVER"])) == (["target"], ["note"])
        ran = demo("device", "attributes", "attributed", "--set", "gone=null")
        assert (ran.code, ran.err) == (1, "rulemill: /gone: a value cannot be null; delete the key instead\n")
        assert "--set KEY=VALUE" in demo("device", "attributes", "attributed", "--scope", "client").out


class TestRpc:
    def test_the_device_answers(self, demo: Demo) -> None:
        token = demo.new_device("answering")
        at = f"{demo.facts['http']}/api/v1/{token}/rpc"

        def answer() -> None:
            asked = httpx.get(at, params={"timeout": 20_000}, timeout=30).json()
            httpx.post(f"{at}/{asked['id']}", json={"method": asked["method"], "got": asked["params"]})

        device = threading.Thread(target=answer)
        device.start()
        ran = demo("device", "rpc", "answering", "setTarget", '{"celsius": 21}')
        device.join()
        assert ran.json == {"method": "setTarget", "got": {"celsius": 21}}

    def test_nobody_answers(self, demo: Demo) -> None:
        demo.new_device("silent")
        ran = demo("device", "rpc", "silent", "blink", "--timeout", "0.2")
        assert (ran.code, ran.err) == (1, "rulemill: the device did not answer in time\n")

    def test_one_way_is_kept_for_it(self, demo: Demo) -> None:
        demo.new_device("absent")
        assert "Nothing waits" in demo("device", "commands", "absent").out
        assert demo("device", "rpc", "absent", "blink", "[1, 2]", "--oneway").code == 0
        ran = demo.until(lambda ran: "blink" in ran.out, "device", "commands", "absent")
        (row,) = ran.rows
        assert row[1:4] == ["blink", "[1,", "2]"]
        assert demo("device", "commands", "absent", "--json").json[0]["oneway"] is True

    def test_bad_words(self, demo: Demo) -> None:
        demo.new_device("misled")
        ran = demo("device", "rpc", "misled", "blink", "{bad")
        assert (ran.code, "PARAMS-JSON is no JSON: " in ran.err) == (1, True)
        ran = demo("device", "rpc", "misled", "blink", "--timeout", "301")
        assert (ran.code, ran.err.startswith("rulemill: /timeout_ms: must be 1 to 300000")) == (1, True)


def test_the_flags_are_in_the_help_of_every_verb(demo: Demo) -> None:
    assert "--tenant" in demo("points", "latest", "--help").out
    helped = demo("device", "add", "-h").out
    assert "Examples:\n" in helped
    assert helped.count("--operator-token TOKEN") == 1
