"""Runs a client of ThingsBoard's SDK, told what to do by lines of JSON; started by `sdk.py`, with the SDK on its path.

    python sdk_process.py CLASS '{"host": …}'

In: `{"id", "call", "args", "named"}`; an argument `{"callback": NAME}` is a function whose calls are told. `call` is a
method of the client or an attribute, CLASS.method for a static one. Out: `{"id", "result"}` or `{"id", "error"}`, and
for callbacks `{"event": NAME, "args"}`.
"""

import importlib
import json
import sys
import threading

CLASSES = {"TBDeviceMqttClient": "tb_device_mqtt", "TBGatewayMqttClient": "tb_gateway_mqtt"}

_writing = threading.Lock()


def tell(**what):
    with _writing:
        sys.stdout.write(json.dumps(what, default=plain) + "\n")
        sys.stdout.flush()


def plain(value):
    """What JSON cannot say: bytes as hex, anything else as its text."""
    return value.hex() if isinstance(value, bytes) else repr(value)


def argument(value):
    if isinstance(value, dict) and set(value) == {"callback"}:
        # The SDK looks at the names of some callbacks' parameters: this one has none of them.
        return lambda *args: tell(event=value["callback"], args=args)
    return value


def find(classes, client, name):
    owner, _, method = name.rpartition(".")
    return getattr(classes[owner] if owner else client, method)


def call(classes, client, asked):
    found = find(classes, client, asked["call"])
    if not callable(found):
        return found
    args = [argument(value) for value in asked["args"]]
    result = found(*args, **{k: argument(v) for k, v in asked["named"].items()})
    # Of a publication: wait until it is acknowledged, and give its code.
    return result.get() if type(result).__name__ == "TBPublishInfo" else result


def main():
    name, options = sys.argv[1], json.loads(sys.argv[2])
    classes = {each: getattr(importlib.import_module(module), each) for each, module in CLASSES.items()}
    client = classes[name](**options)
    tell(event="ready", args=[])
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            tell(id=asked["id"], result=call(classes, client, asked))
        except Exception as error:
            tell(id=asked["id"], error=f"{type(error).__name__}: {error}")
    client.stop()


if __name__ == "__main__":
    main()
