"""Which way downlinks go after an uplink, by a webhook or by the network's broker."""

import json

import pytest

from api.dialects.cloudthing.lorawan_mqtt import LorawanBrokers
from engine.stores.routes import FIELD, Broker, Route, decode
from tests.api.dialects.cloudthing.networks import DEV_EUI, LUA, PRODUCT, chirpstack, put_linked, put_product, send, ttn
from tests.api.dialects.cloudthing.site import TENANT

pytestmark = pytest.mark.asyncio

MQTT = {"host": "h", "username": "app1@ttn", "password": "${secret:KEY}"}
LOGIN = ("h", 1883, False, "app1@ttn", "${secret:KEY}")
DOWN = "v3/app1@ttn/devices/dev1/down"
TTN = Route("ttn", "", broker=Broker(*LOGIN, f"{DOWN}/push", f"{DOWN}/replace"))
APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
COMMAND = f"application/{APPLICATION}/device/{DEV_EUI.lower()}/command/down"
AT_CHIRPSTACK = Broker(*LOGIN, COMMAND, dev_eui=DEV_EUI.lower())
QUEUE = f"https://c.example/api/devices/{DEV_EUI.lower()}/queue"


async def route_after(site, network, document, topic, **facet):
    """The route that is known after an uplink, in that topic or else by a webhook; None if there is none."""
    await put_product(site, **{network: facet}, transform=LUA)
    device = await put_linked(site)
    if topic:
        brokers = LorawanBrokers(site.stack.url, site.stack.redis, site.stack.registry, site.service)
        await brokers.take(PRODUCT, network, topic, json.dumps(document).encode())
    else:
        assert (await send(site, f"/{network}/{PRODUCT}?event=up", document)).status_code == 200
    keys = await site.stack.redis.keys(f"rm:*}}:node:{device.id}")
    return decode(await site.stack.redis.hget(keys[0], FIELD)) if keys else None


@pytest.mark.spec("CT-X2")
async def test_downlinks_of_the_things_stack(site):
    server = {"downlink": {"server": "https://a.example", "webhook": "w"}}
    odd = ttn()
    odd["end_device_ids"]["device_id"] = "a/#"
    topic = "v3/app1@ttn/devices/dev1/up"
    for document, by, facet, expected in (
        (odd, "", {"mqtt": MQTT}, None),
        (odd, topic, {"mqtt": MQTT}, None),
        (ttn(), "", {"mqtt": {**MQTT, "username": "other@ttn"}}, None),
        (ttn(), "", {"mqtt": MQTT}, TTN),
        (ttn(), topic, {"mqtt": MQTT, **server}, TTN),
    ):
        assert await route_after(site, "ttn", document, by, **facet) == expected
    found = await route_after(site, "ttn", ttn(f_cnt=9), "", mqtt=MQTT, **server)
    assert (found.url[:17], found.broker) == ("https://a.example", None)


@pytest.mark.spec("CT-X3")
async def test_downlinks_of_chirpstack(site):
    server = {"downlink": {"server": "https://c.example"}}
    odd = chirpstack()
    odd["deviceInfo"]["applicationId"] = "+"
    topic = f"application/{APPLICATION}/device/{DEV_EUI.lower()}/event/up"
    for document, by, facet, expected in (
        (odd, "", {"mqtt": MQTT}, None),
        (chirpstack(), "", {"mqtt": MQTT}, Route("chirpstack", "", broker=AT_CHIRPSTACK)),
        (chirpstack(), "", {"mqtt": MQTT, **server}, Route("chirpstack", QUEUE)),
        (chirpstack(), topic, {"mqtt": MQTT, **server}, Route("chirpstack", QUEUE, broker=AT_CHIRPSTACK)),
        (chirpstack(), topic, {"mqtt": MQTT}, Route("chirpstack", "", broker=AT_CHIRPSTACK)),
    ):
        assert await route_after(site, "chirpstack", document, by, **facet) == expected


@pytest.mark.spec("CT-X2")
async def test_the_login_may_be_a_secret(site):
    await site.stack.registry.put_secret(TENANT, "USER", "app1@ttn")
    found = await route_after(site, "ttn", ttn(), "", mqtt={**MQTT, "username": "${secret:USER}"})
    assert found.broker.topic == f"{DOWN}/push"
    assert found.broker.username == "${secret:USER}"
