#!/bin/sh
# What an app does, call by call: a user, their thing, its values, a friend, magic resources, settings, alerts, objects.
# Status and headers are shown with each answer. It may be run again: then the user is there already, and logs in.
set -eu
. "$(dirname "$0")/settings.sh"
step() { printf '\n\n== %s\n' "$1"; }

step "Without a session"
curl -sS -H "Content-Type: application/json" \
  -X GET "$API/v2/"

step "Register"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -d '{"email": "'"$EMAIL"'", "password": "'"$PASSWORD"'", "app": "'"$APP"'"}' \
  -X POST "$API/v2/register" -k

step "Login"
login=$(curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -d '{"email": "'"$EMAIL"'", "password": "'"$PASSWORD"'", "app": "'"$APP"'"}' \
  -X POST "$API/v2/login" -k)
printf '%s' "$login"
TOKEN=$(printf '%s' "$login" | tail -n 1 | member token)
(umask 077 && printf '%s' "$TOKEN" >"$SESSION")

step "Link the thing"
linked=$(curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"thingToken": "'"$THING_TOKEN"'"}' \
  -X POST "$API/v2/me/things" -k)
printf '%s' "$linked"
THING=$(printf '%s' "$linked" | tail -n 1 | member thingId)

step "Which resources there are"
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources" -k

step "Let a friend read"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"email": "'"$FRIEND"'", "permissions": {"temperature":{"'"$THING"'":{"get": true}}}}' \
  -X PUT "$API/v2/me/grant" -k

step "Write a value"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"values": [{"value": 15}] }' \
  -X POST "$API/v2/me/resources/temperature/$THING?sync=true" -k

step "Read it: of all things, then of one, page by page"
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/temperature" -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/temperature/$THING?limit=1000" -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/temperature/$THING?limit=1000&endDate=2017-01-15T17:46:06.932Z" -k

step "Where the thing is"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"values": [{"value": {"type": "Point","coordinates": [2.154007, 41.390205]}}] }' \
  -X POST "$API/v2/me/resources/\$geo/$THING" -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/\$geo/$THING" -k

step "What is set of the thing"
curl -sS -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"values":
      [{
          "value" : {
                  "name": "My Thing",
                  "foo": "bar"
          }
       }]
  }' \
  -X POST "$API/v2/me/resources/\$settings/$THING"
curl -sS -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"values":
      [{
          "value" : "My Thing"
       }]
  }' \
  -X POST "$API/v2/me/resources/\$settings.name/$THING"
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/\$settings/$THING" \
  -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/resources/\$settings.name/$THING" \
  -k

step "What the user keeps"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"hair-color": "pink", "phones": ["13246578","99833212"]}' \
  -X PUT "$API/v2/me/settings" -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/settings" -k

step "The server's clock"
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/utils/date/?format=UTC" -k

step "An alert, from its raising to its end"
alert=$(curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"thingId": "'"$THING"'", "type": "Help", "severity": "MAJOR", "details": "I have fallen"}' \
  -X POST "$API/v2/me/alerts" -k)
printf '%s' "$alert"
ALERT=$(printf '%s' "$alert" | tail -n 1 | member id)
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/me/alerts?active=true&limit=1" -k
curl -sS -i -H "Accept: application/json" \
  -H "Authorization: $TOKEN" \
  -X DELETE "$API/v2/me/alerts/$ALERT" -k

step "An object, from its making to its end"
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"_id": "25", "name": "Dubstep"}' \
  -X POST "$API/v2/classes/me/Playlists" -k
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"name": "Dubstep"}' \
  -X POST "$API/v2/classes/me/Playlists/25" -k
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -d '{"name": "Dubstep Mix", "duration": 180}' \
  -X PUT "$API/v2/classes/me/Playlists/25" -k
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/classes/me/Playlists/25" -k
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -X GET "$API/v2/classes/me/Playlists" -k
curl -sS -i -H "Accept: application/json" \
  -H "Content-Type: application/json" \
  -H "Authorization: $TOKEN" \
  -X DELETE "$API/v2/classes/me/Playlists/25" -k
echo
