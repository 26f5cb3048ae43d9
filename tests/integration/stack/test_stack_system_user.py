"""The system user that PostgreSQL runs as where we are root."""

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("useradd"), reason="makes users")

NUM_STARTERS = 5
STARTER = """
import sys
from egrpo_client.stack import postgres
postgres.SYSTEM_USER = sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
user = postgres._owner()
print(user.pw_name, user.pw_uid, user.pw_gid)
"""


@pytest.fixture
def name() -> Iterator[str]:
    """A user that this machine does not have, and will not have afterwards; no other test makes one meanwhile."""
    name = f"egrpo-{uuid.uuid4().hex[:12]}"
    yield name
    etc = os.open("/etc", os.O_RDONLY)
    fcntl.flock(etc, fcntl.LOCK_EX)
    subprocess.run(["userdel", name], check=True, capture_output=True)
    os.close(etc)


def test_stacks_that_start_for_the_first_time_together_make_one_user(name: str) -> None:
    command = [sys.executable, "-c", STARTER, name]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(NUM_STARTERS)
    ]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    told = {starter.communicate()[0] for starter in starters}
    user = pwd.getpwnam(name)
    assert told == {f"{name} {user.pw_uid} {user.pw_gid}\n"}
