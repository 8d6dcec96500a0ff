#!/bin/sh
# Send one measurement over HTTP and one over MQTT.
set -eu
. "$(dirname "$0")/settings.sh"

curl -sSf -H "Content-Type: application/json" \
-u "$DEVICE_ID:$DEVICE_TOKEN" \
-X POST "$CT_URL/v1/$DEVICE_ID/data" \
-d '{"r":[{"k":"temp","v":36.6}]}'

mosquitto_pub -h "$MQTT_HOST" -p "$MQTT_PORT" \
-u "$TENANT:$DEVICE_ID" \
-P "$DEVICE_TOKEN" \
-t "v1/$DEVICE_ID/data?ct=json" \
-m '{"r":[{"k":"temp","v":36.6}]}'
