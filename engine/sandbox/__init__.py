"""Script engines with time and memory budgets. No Python object ever enters a script."""
