"""What products may say of radio networks."""

from __future__ import annotations

from typing import Any

import pytest

from api.networks import ChirpStack, Sigfox, Ttn, check_networks, facet_of, resolved


@pytest.mark.spec("CT-50")
def test_what_facets_say() -> None:
    assert facet_of({}, "sigfox") is None
    assert facet_of({"sigfox": {}}, "sigfox") == Sigfox(enabled=True, auto_generate=False)
    assert facet_of({"sigfox": {"enabled": False, "autoGenerate": True}}, "sigfox") == Sigfox(False, True)
    found = facet_of({"ttn": {"downlink": {"server": "https://eu1.cloud.thethings.network", "webhook": "w"}}}, "ttn")
    assert isinstance(found, Ttn)
    assert found.downlink is not None
    assert isinstance(facet_of({"chirpstack": {"secret": "s"}}, "chirpstack"), ChirpStack)
    assert check_networks({"sigfox": {}, "ttn": None, "other": 7}) == []


@pytest.mark.parametrize(
    ("facets", "pointers"),
    [
        ({"sigfox": True}, ["/sigfox"]),
        ({"sigfox": {"enabled": "yes"}}, ["/sigfox/enabled"]),
        ({"sigfox": {"auto": True}, "ttn": {"downlink": {"server": "x", "webhook": "w"}}},
         ["/sigfox", "/ttn/downlink/server"]),
        ({"ttn": {"downlink": {"server": "https://a.example/path", "webhook": "w"}}}, ["/ttn/downlink/server"]),
        ({"ttn": {"downlink": {"server": "https://u:p@a.example", "webhook": "w"}}}, ["/ttn/downlink/server"]),
        ({"chirpstack": {"downlink": {}}}, ["/chirpstack/downlink"]),
        ({"chirpstack": {"secret": 7}}, ["/chirpstack/secret"]),
    ],
)  # fmt: skip
def test_everything_wrong_is_found_with_its_place(facets: dict[str, Any], pointers: list[str]) -> None:
    assert [finding.pointer for finding in check_networks(facets)] == pointers


@pytest.mark.asyncio
async def test_secrets_may_stand_elsewhere() -> None:
    async def secrets() -> dict[str, str]:
        return {"A": "hush"}

    assert await resolved("${secret:A}", secrets) == "hush"
    assert await resolved("${secret:B}", secrets) is None
    assert await resolved("plain", secrets) == "plain"
    assert await resolved("", secrets) == ""
