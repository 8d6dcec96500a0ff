#!/bin/sh
# Report that badge 7 (or the one given) is at the door. The product's function answers: by HTTP in the response, by
# MQTT on v1/<device>/responses/door.
set -eu
. "$(dirname "$0")/settings.sh"
badge="${1:-7}"

curl -sSf -u "$DEVICE_ID:$DEVICE_TOKEN" -X POST "$CT_URL/v1/$DEVICE_ID/events/door" -d "{\"badge\":$badge}"
echo

mosquitto_sub -h "$MQTT_HOST" -p "$MQTT_PORT" -u "$TENANT:$DEVICE_ID" -P "$DEVICE_TOKEN" \
-t "v1/$DEVICE_ID/responses/+" -C 1 -W 10 &
hearing=$!
sleep 2
mosquitto_pub -h "$MQTT_HOST" -p "$MQTT_PORT" -u "$TENANT:$DEVICE_ID" -P "$DEVICE_TOKEN" \
-t "v1/$DEVICE_ID/events/door" -m "{\"badge\":$badge}"
wait "$hearing"
