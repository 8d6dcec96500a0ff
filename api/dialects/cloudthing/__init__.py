"""The CloudThing connectors over HTTP and MQTT."""
