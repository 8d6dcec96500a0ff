"""Guarded clients of the nodes that call the world outside."""
