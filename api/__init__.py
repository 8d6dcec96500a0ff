"""The outside world: transports, dialects, the management API, and the composition root."""
