"""Bytes to records: the formats that the decode node reads."""
