"""The kernel: messages, plans, partitions, commits. Knows no node kind, no dialect, no HTTP."""
