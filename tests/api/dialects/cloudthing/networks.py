"""Products of radio networks on the site, and what the networks send."""

import base64
import json

from engine.node import Product
from engine.stores.registry import Device
from tests.api.dialects.cloudthing.site import TENANT

PRODUCT = "SoMEc0MpL1Cat3D1D"
"""The documented product; a device of another test has the same id, in another name space."""
SIGFOX_ID = "1A2B3C"
DEV_EUI = "70B3D57ED0001234"
SECRET = "k0nnector-s3cret"
JS = {"lang": "js", "source": 'return [{key: "temp", value: msg.bytes[1]}];'}
LUA = {"lang": "lua", "source": 'return {{key = "temp", value = msg.bytes[2]}}'}
RECEIVED = "2016-05-03T13:24:16.123456789Z"
RECEIVED_MS = 1_462_281_856_123


async def put_product(site, **facets):
    return await site.stack.registry.put_product(Product(id=PRODUCT, tenant=TENANT, facets=facets))


async def put_linked(site, name="far away", **links):
    links = links or {"sigfox": "001a2b3c", "lorawan": "70-b3-d5-7e-d0-00-12-34"}
    return await site.stack.registry.put_device(
        Device(id=name.replace(" ", "-"), tenant=TENANT, name=name, product=PRODUCT, links=links)
    )


def ttn(payload=b"\x01\x25", **more):
    """An uplink of The Things Stack as its documentation has them; `more` goes into `uplink_message`."""
    return {
        "end_device_ids": {
            "device_id": "dev1",
            "application_ids": {"application_id": "app1"},
            "dev_eui": DEV_EUI,
            "join_eui": "800000000000000C",
            "dev_addr": "00BCB929",
        },
        "correlation_ids": ["as:up:01E0WZGT6Y7657CPFPE5WEYDSQ"],
        "received_at": "2016-05-03T13:24:17Z",
        "uplink_message": {
            "session_key_id": "AXBSH1Pk6Z0G166…",
            "f_port": 15,
            "f_cnt": 2,
            "frm_payload": base64.b64encode(payload).decode(),
            "rx_metadata": [
                {"gateway_ids": {"gateway_id": "far"}, "rssi": -110, "snr": -3.5},
                {"gateway_ids": {"gateway_id": "near"}, "rssi": -35, "snr": 5.2},
            ],
            "settings": {
                "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}},
                "frequency": "868300000",
            },
            "received_at": RECEIVED,
            **more,
        },
    }


def chirpstack(payload=b"\x01\x25", **more):
    """An uplink of ChirpStack v4 in JSON."""
    return {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": RECEIVED,
        "deviceInfo": {
            "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
            "tenantName": "ChirpStack",
            "applicationId": "17c82e96-be03-4f38-aef3-f83d48582d97",
            "applicationName": "Test application",
            "deviceProfileId": "14855bf7-d10d-4aee-b618-ebfcb64dc7ad",
            "deviceProfileName": "Test device-profile",
            "deviceName": "Test device",
            "devEui": DEV_EUI.lower(),
            "tags": {"key": "value"},
        },
        "devAddr": "00189440",
        "dr": 1,
        "fCnt": 7,
        "fPort": 15,
        "data": base64.b64encode(payload).decode(),
        "rxInfo": [
            {"gatewayId": "0016c001f153a14c", "uplinkId": 4217106255, "rssi": -36, "snr": 10.5},
            {"gatewayId": "0016c001f153ffff", "uplinkId": 1, "rssi": -120, "snr": -10},
        ],
        "txInfo": {
            "frequency": 867100000,
            "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 11, "codeRate": "CR_4_5"}},
        },
        **more,
    }


async def send(site, path, document, **headers):
    """POST JSON, or bytes as they are, to a path."""
    client = await site.stack.client(site.http_url)
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await client.post(path, content=body, headers={"Content-Type": "application/json", **headers})


# Events of a device, as the network's own library (chirpstack-api 4.20.0) writes them; it lacks `integration`.
CHIRPSTACK_EVENTS = {
    "up": bytes.fromhex(
        "0a083361633765336334120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936"
        "221054657374206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765"
        "64303030313233344a0c0a036b6579120576616c756522083030313839343430280130013807400f48015202012562330a10"
        "3030313663303031663135336131346310cfdeefda0f30dcffffffffffffffff013d000028416209090000000000404a406a"
        "1208e0cabb9d03120a1a0808c8d007100b2801"
    ),
    "up_object": bytes.fromhex(
        "0a083361633765336334120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936"
        "221054657374206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765"
        "64303030313233344a0c0a036b6579120576616c756522083030313839343430280130013807400f4801520201255a2b0a16"
        "0a04646f6f72120e2a0c0a0a0a046f70656e120220010a110a0474656d70120911000000000080354062330a103030313663"
        "303031663135336131346310cfdeefda0f30dcffffffffffffffff013d000028416209090000000000404a406a1208e0cabb"
        "9d03120a1a0808c8d007100b2801"
    ),
    "join": bytes.fromhex(
        "0a026a31120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936221054657374"
        "206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765643030303132"
        "33344a0c0a036b6579120576616c756522083030313839343430"
    ),
    "status": bytes.fromhex(
        "0a027331120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936221054657374"
        "206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765643030303132"
        "33344a0c0a036b6579120576616c756528fbffffffffffffffff014500009742"
    ),
    "ack": bytes.fromhex(
        "0a026131120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936221054657374"
        "206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765643030303132"
        "33344a0c0a036b6579120576616c75652202713128013009"
    ),
    "txack": bytes.fromhex(
        "0805120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a0831376338326539362210546573742061"
        "70706c69636174696f6e320770726f66696c653a0b5465737420646576696365421037306233643537656430303031323334"
        "4a0c0a036b6579120576616c756522027131280932026731"
    ),
    "log": bytes.fromhex(
        "0a0b0880cda2b90510959aef3a12610a0174120a4368697270537461636b1a08313763383265393622105465737420617070"
        "6c69636174696f6e320770726f66696c653a0b54657374206465766963654210373062336435376564303030313233344a0c"
        "0a036b6579120576616c7565180220062a0362616432060a0161120162"
    ),
    "location": bytes.fromhex(
        "0a026c31120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936221054657374"
        "206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765643030303132"
        "33344a0c0a036b6579120576616c75652212090000000000204a40110000000000803a40"
    ),
    "integration": bytes.fromhex(
        "0a026931120b0880cda2b90510959aef3a1a610a0174120a4368697270537461636b1a083137633832653936221054657374"
        "206170706c69636174696f6e320770726f66696c653a0b546573742064657669636542103730623364353765643030303132"
        "33344a0c0a036b6579120576616c756522096c6f7261636c6f75642a017832100a0e0a016e120911000000000000f03f"
    ),
}
