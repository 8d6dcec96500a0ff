"""The ThingsBoard device API over HTTP and MQTT."""
