# What people do over ThingsBoard's REST API while the device waits. Read by seed.sh, after settings.sh.

# log_in NAME PASSWORD: a token.
log_in() {
  curl -sSf -X POST "$TB_URL/api/auth/login" -d "{\"username\":\"$1\",\"password\":\"$2\"}" |
    sed 's/.*"token":"\([^"]*\)".*/\1/'
}

# as TOKEN ARGUMENT…: curl as that person.
as() {
  token="$1"
  shift
  curl -sS -H "X-Authorization: Bearer $token" -H "Content-Type: application/json" "$@"
}
