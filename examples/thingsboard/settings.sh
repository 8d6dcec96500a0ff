# Where the server is, and who the device is; every value can be set in the environment. Read by the scripts beside it.
: "${TB_URL:=http://127.0.0.1:8080}"
: "${ACCESS_TOKEN:=A1_TEST_TOKEN}"
: "${DEVICE_ID:=a7f2ba40-0000-4000-8000-000000000001}"
: "${DEVICE_NAME:=Test%20Device%20A1}"
: "${TITLE:=thermostat}"
: "${VERSION:=1.2}"
