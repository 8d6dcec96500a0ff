#!/bin/sh
# Wait for commands as a stream over HTTP, a blank line every ten seconds; or with `mqtt` over MQTT, or with `json` as
# lines of JSON that tell the command's id. More options go to curl: `--raw` shows the chunks with their extensions.
set -eu
. "$(dirname "$0")/settings.sh"
form="${1:-stream}"
[ $# -eq 0 ] || shift

case "$form" in
stream)
  exec curl -sSN "$@" -H "Content-Type: application/json" \
  -u "$DEVICE_ID:$DEVICE_TOKEN" \
  -X GET "$CT_URL/v1/$DEVICE_ID/commands?stream=10000" ;;
json)
  exec curl -sSN "$@" -u "$DEVICE_ID:$DEVICE_TOKEN" "$CT_URL/v1/$DEVICE_ID/commands?stream=10000&format=json" ;;
mqtt)
  exec mosquitto_sub "$@" -h "$MQTT_HOST" -p "$MQTT_PORT" \
  -u "$TENANT:$DEVICE_ID" -P "$DEVICE_TOKEN" -t "v1/$DEVICE_ID/commands/+" -v ;;
*)
  echo "commands.sh [stream|json|mqtt] [option…]" >&2
  exit 2 ;;
esac
