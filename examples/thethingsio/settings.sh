# Where the server is, which app and which thing; every value can be set in the environment. Without them they are those
# of a running demo (RULEMILL_DATA: its folder). Read by the scripts beside it.
of_demo() {
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))'"$1"')' "${RULEMILL_DATA:-rulemill-data}/ready.json"
}
: "${API:=$(of_demo '["http"]')}"
: "${APP:=$(of_demo '["thethingsio"]["app"]')}"
: "${THING_TOKEN:=$(of_demo '["thethingsio"]["thing_token"]')}"
: "${EMAIL:=you@example.org}"
: "${FRIEND:=friend@email.com}"
: "${PASSWORD:=a hard to guess password}"
: "${SESSION:=${TMPDIR:-/tmp}/rulemill-session}"

member() {
  python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
