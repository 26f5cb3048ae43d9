"""Fixtures that several areas of the tests share; the real servers are in `server_fixtures.py`."""

from hypothesis import settings

pytest_plugins = ["server_fixtures", "model_fixtures"]

# A busy machine is no property of the code: an example may take its time, pytest's own limit still ends a hang.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
