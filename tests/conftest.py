"""Fixtures that several areas of the tests share; the real servers are in `server_fixtures.py`."""

pytest_plugins = ["server_fixtures", "model_fixtures"]
