"""Fixtures that every test may use; servers live in `tests/servers.py`."""
