# Where the server is, and who the device is; every value can be set in the environment. Read by the scripts beside it.
: "${CT_URL:=http://127.0.0.1:8081}"
: "${MQTT_HOST:=127.0.0.1}"
: "${MQTT_PORT:=1883}"
: "${TENANT:=short-name}"
: "${DEVICE_ID:=SoMEc0MpL1Cat3D1D}"
: "${DEVICE_TOKEN:=3xAmpLeT0K3n}"
