"""The management API under /flow/v1."""
