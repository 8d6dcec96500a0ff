import pytest

from api.dialects.cloudthing.payloads import as_bytes, as_listed, as_value


@pytest.mark.spec("CT-6")
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5]}', {"a": [1, 2.5]}),
        (b"5", 5),
        (b"ON", {"raw_b64": "T04=", "hex": "4f4e"}),
        (b"", {"raw_b64": "", "hex": ""}),
        (b"\xff\x00", {"raw_b64": "/wA=", "hex": "ff00"}),
    ],
)
def test_bytes_are_json_or_kept_as_they_are(body, value):
    assert as_value(body) == value


@pytest.mark.parametrize("body", [b"ON", b"", b"\xff\x00", bytes(range(256)), b"{", b"[" * 50 + b"]" * 50])
@pytest.mark.spec("CT-6")
def test_bytes_that_are_not_json_come_back_unchanged(body):
    assert as_bytes(as_value(body)) == (body, False)


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ("ON", (b"ON", False)),
        (b"\xff", (b"\xff", False)),
        ({"a": 1}, (b'{"a":1}', True)),
        (5, (b"5", True)),
        (None, (b"null", True)),
        ({"raw_b64": "?"}, (b'{"raw_b64":"?"}', True)),
        ({"raw_b64": "/w==", "more": 1}, (b'{"raw_b64":"/w==","more":1}', True)),
    ],
)
def test_values_become_bytes(value, payload):
    assert as_bytes(value) == payload


@pytest.mark.spec("CT-S7")
@pytest.mark.parametrize(
    ("value", "listed"),
    [("ON", "ON"), ("5", 5), ({"a": 1}, {"a": 1}), (b"\xff", {"$base64": "/w=="}), ({"raw_b64": "T04="}, "ON")],
)
def test_payloads_in_a_list_of_commands(value, listed):
    assert as_listed(value) == listed
