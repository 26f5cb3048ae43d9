"""Fixtures that several areas of the tests share; the real servers are in `server_fixtures.py`."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

pytest_plugins = ["server_fixtures", "model_fixtures"]

# A busy machine is no property of the code: an example may take its time, pytest's own limit still ends a hang.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Tests compute on tiny models, where a second thread waits more than it works, and run beside each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests encode is no business of the user's cache, and must be encoded by the tests.
os.environ["EGRPO_CACHE"] = tempfile.mkdtemp(prefix="egrpo-cache-")
atexit.register(shutil.rmtree, os.environ["EGRPO_CACHE"], ignore_errors=True)
