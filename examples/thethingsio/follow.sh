#!/bin/sh
# Show each new value of a resource as it comes, and {} when there was none for two seconds; or, with a path such as
# classes/me/Playlists, each object that is changed. It has the session that app.sh began.
set -eu
. "$(dirname "$0")/settings.sh"
what="${1:-me/resources/temperature}"

exec curl -sSN -H "Content-Type: application/json" \
  -H "Authorization: $(cat "$SESSION")" \
  -X GET "$API/v2/$what?subscribe=true&keepAlive=2000"
