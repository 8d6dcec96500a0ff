#!/bin/sh
# Every command of ThingsBoard's HTTP Device API documentation as it is printed there, but for the host; on a server
# that was just made from bootstrap.json. What people do meanwhile is done here too, and marked so.
set -eu
cd "$(dirname "$0")"
. ./settings.sh
. ./operator.sh

step() {
  printf '\n# %s\n' "$1"
}

operator="$(log_in operator@example.com operator-1)"
customer="$(log_in customer@example.com customer-1)"

step "Telemetry upload API, example 1: an object; the server gives the time"
curl -v -X POST --data "{"temperature":42,"humidity":73}" $TB_URL/api/v1/$ACCESS_TOKEN/telemetry --header "Content-Type:application/json"

step "Example 2: an object from a file"
curl -v -X POST -d @telemetry-data-as-object.json $TB_URL/api/v1/$ACCESS_TOKEN/telemetry --header "Content-Type:application/json"

step "Example 3: an array"
curl -v -X POST -d @telemetry-data-as-array.json $TB_URL/api/v1/$ACCESS_TOKEN/telemetry --header "Content-Type:application/json"

step "Example 4: with a time of the device's own"
curl -v -X POST -d @telemetry-data-with-ts.json $TB_URL/api/v1/$ACCESS_TOKEN/telemetry --header "Content-Type:application/json"

step "Attributes API, example 1: publish an update"
curl -v -X POST --data "{"attribute1": "value1", "attribute2":true, "attribute3": 43.0}" $TB_URL/api/v1/$ACCESS_TOKEN/attributes --header "Content-Type:application/json"

step "Request attribute values from the server"
sleep 1 # whoever types them gives the chain that time
curl -v -X GET "$TB_URL/api/v1/$ACCESS_TOKEN/attributes?clientKeys=attribute1,attribute2&sharedKeys=shared1,shared2"

step "Example 2: an update from a file"
curl -v -X POST -d @new-attributes-values.json $TB_URL/api/v1/$ACCESS_TOKEN/attributes --header "Content-Type:application/json"

step "Subscribe to attribute updates; the operator sets shared attributes"
(
  sleep 1
  as "$operator" -f "$TB_URL/api/plugins/telemetry/DEVICE/$DEVICE_ID/SHARED_SCOPE" \
    -d '{"attribute1":"value1","attribute2":true}'
) &
curl -v -X GET $TB_URL/api/v1/$ACCESS_TOKEN/attributes/updates?timeout=20000
wait

step "Server-side RPC; the operator calls connect"
answer="$(mktemp)"
trap 'rm -f "$answer"' EXIT
as "$operator" -f "$TB_URL/api/rpc/twoway/$DEVICE_ID" -d '{"method":"connect","params":{}}' >"$answer" &
curl -v -X GET $TB_URL/api/v1/$ACCESS_TOKEN/rpc?timeout=20000
curl -v -X POST -d @rpc-response.json $TB_URL/api/v1/$ACCESS_TOKEN/rpc/1 --header "Content-Type:application/json"
wait
step "What the operator got"
cat "$answer"

step "Client-side RPC"
curl -X POST -d @rpc-client-request.json $TB_URL/api/v1/$ACCESS_TOKEN/rpc --header "Content-Type:application/json"

step "Claiming devices; a customer claims the device, and gives it back"
curl -v -X POST --data '{"secretKey":"value", "durationMs":60000}' $TB_URL/api/v1/$ACCESS_TOKEN/claim
as "$customer" -f -X POST "$TB_URL/api/customer/device/$DEVICE_NAME/claim" -d '{"secretKey":"value"}'
as "$customer" -f -X DELETE "$TB_URL/api/customer/device/$DEVICE_NAME/claim"

step "Device provisioning"
curl -v -X POST --data '{
  "deviceName": "DEVICE_NAME",
  "provisionDeviceKey": "u7piawkboq8v32dmcmpp",
  "provisionDeviceSecret": "jpmwdn8ptlswmf4m29bw"
}' $TB_URL/api/v1/provision

step "Firmware API; which firmware it is stands in shared attributes"
curl -v -X GET "$TB_URL/api/v1/$ACCESS_TOKEN/attributes?sharedKeys=fw_title,fw_version,fw_checksum,fw_checksum_algorithm"
curl -v "$TB_URL/api/v1/$ACCESS_TOKEN/firmware?title=$TITLE&version=$VERSION"
