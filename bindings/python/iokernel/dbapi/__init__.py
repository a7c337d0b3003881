"""Modules by the Python Database API 2.0 (PEP 249), for plain threads: one for each protocol."""
