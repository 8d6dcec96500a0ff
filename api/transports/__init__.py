"""How bytes arrive and leave. No transport knows a dialect."""
