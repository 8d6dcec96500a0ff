#!/bin/sh
# What a thing sends: a value over HTTP, and the same over MQTT if Mosquitto's program is there. A number may be given.
set -eu
. "$(dirname "$0")/settings.sh"
value="${1:-21}"
: "${MQTT_HOST:=127.0.0.1}"
: "${MQTT_PORT:=1883}"

curl -sSf -H "Content-Type: application/json" \
  -d '{"values": [{"key": "temperature", "value": '"$value"'}]}' \
  -X POST "$API/v2/things/$THING_TOKEN"
echo

if command -v mosquitto_pub >/dev/null; then
  mosquitto_pub -h "$MQTT_HOST" -p "$MQTT_PORT" -q 1 -t "v2/things/$THING_TOKEN" \
    -m '{"values": [{"key": "temperature", "value": '"$value"'}]}'
fi
