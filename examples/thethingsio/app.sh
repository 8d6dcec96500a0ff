#!/bin/sh
# What an app does, call by call: a user, their thing, its values, a friend, magic resources, settings, alerts, objects.
# Status and headers are shown with each answer. It may be run again: then the user is there already, and logs in.
set -eu
. "$(dirname "$0")/settings.sh"
step() { printf '\n\n== %s\n' "$1"; }
# What all calls have in common, and those of a session besides.
call() { curl -sS -k -H "Accept: application/json" -H "Content-Type: application/json" "$@"; }
as_user() { call -H "Authorization: $TOKEN" "$@"; }

step "Without a session"
call -X GET "$API/v2/"

step "Register"
call -i -d '{"email": "'"$EMAIL"'", "password": "'"$PASSWORD"'", "app": "'"$APP"'"}' \
  -X POST "$API/v2/register"

step "Login"
login=$(call -i -d '{"email": "'"$EMAIL"'", "password": "'"$PASSWORD"'", "app": "'"$APP"'"}' \
  -X POST "$API/v2/login")
printf '%s' "$login"
TOKEN=$(printf '%s' "$login" | tail -n 1 | member token)
(umask 077 && printf '%s' "$TOKEN" >"$SESSION")

step "Link the thing"
linked=$(as_user -i -d '{"thingToken": "'"$THING_TOKEN"'"}' -X POST "$API/v2/me/things")
printf '%s' "$linked"
THING=$(printf '%s' "$linked" | tail -n 1 | member thingId)

step "Which resources there are"
as_user -i -X GET "$API/v2/me/resources"

step "Let a friend read"
as_user -i -d '{"email": "'"$FRIEND"'", "permissions": {"temperature":{"'"$THING"'":{"get": true}}}}' \
  -X PUT "$API/v2/me/grant"

step "Write a value"
as_user -i -d '{"values": [{"value": 15}] }' -X POST "$API/v2/me/resources/temperature/$THING?sync=true"

step "Read it: of all things, then of one, page by page"
as_user -i -X GET "$API/v2/me/resources/temperature"
as_user -i -X GET "$API/v2/me/resources/temperature/$THING?limit=1000"
as_user -i -X GET "$API/v2/me/resources/temperature/$THING?limit=1000&endDate=2017-01-15T17:46:06.932Z"

step "Where the thing is"
as_user -i -d '{"values": [{"value": {"type": "Point","coordinates": [2.154007, 41.390205]}}] }' \
  -X POST "$API/v2/me/resources/\$geo/$THING"
as_user -i -X GET "$API/v2/me/resources/\$geo/$THING"

step "What is set of the thing"
as_user -d '{"values": [{"value": {"name": "My Thing", "foo": "bar"}}]}' \
  -X POST "$API/v2/me/resources/\$settings/$THING"
as_user -d '{"values": [{"value": "My Thing"}]}' -X POST "$API/v2/me/resources/\$settings.name/$THING"
as_user -i -X GET "$API/v2/me/resources/\$settings/$THING"
as_user -i -X GET "$API/v2/me/resources/\$settings.name/$THING"

step "What the user keeps"
as_user -i -d '{"hair-color": "pink", "phones": ["13246578","99833212"]}' -X PUT "$API/v2/me/settings"
as_user -i -X GET "$API/v2/me/settings"

step "The server's clock"
as_user -i -X GET "$API/v2/utils/date/?format=UTC"

step "An alert, from its raising to its end"
alert=$(as_user -i -d '{"thingId": "'"$THING"'", "type": "Help", "severity": "MAJOR", "details": "I have fallen"}' \
  -X POST "$API/v2/me/alerts")
printf '%s' "$alert"
ALERT=$(printf '%s' "$alert" | tail -n 1 | member id)
as_user -i -X GET "$API/v2/me/alerts?active=true&limit=1"
as_user -i -X DELETE "$API/v2/me/alerts/$ALERT"

step "An object, from its making to its end"
as_user -i -d '{"_id": "25", "name": "Dubstep"}' -X POST "$API/v2/classes/me/Playlists"
as_user -i -d '{"name": "Dubstep"}' -X POST "$API/v2/classes/me/Playlists/25"
as_user -i -d '{"name": "Dubstep Mix", "duration": 180}' -X PUT "$API/v2/classes/me/Playlists/25"
as_user -i -X GET "$API/v2/classes/me/Playlists/25"
as_user -i -X GET "$API/v2/classes/me/Playlists"
as_user -i -X DELETE "$API/v2/classes/me/Playlists/25"
echo
