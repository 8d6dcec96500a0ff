"""The MQTT device endpoint: not a broker; a PUBACK here means the message is stored."""
