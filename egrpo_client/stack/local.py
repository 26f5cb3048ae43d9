"""The local stack: PostgreSQL, Valkey, SeaweedFS, the schema, a bucket, a key, the api, a worker and the maintenance
process, as one.

Producer and consumers: this process starts all others, notes each in the state file and with the guard, restarts one
that ends by itself, and stops all in the reverse order of their start. Servers start together; what depends on the
database starts as soon as the database answers.
"""

import base64
import contextlib
import dataclasses
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import minio
import psutil

from egrpo_client.stack import postgres, seaweed, valkey
from egrpo_client.stack.errors import ServerStartError
from egrpo_client.stack.folder import StackFolder, StackState
from egrpo_client.stack.guard import Guard
from egrpo_client.stack.ports import LOOPBACK, free_ports, is_free, keep, require_free
from egrpo_client.stack.processes import LOG_TAIL_LINES, ProcessIdentity, ServerProcess, stop_all
from egrpo_client.stack.signals import StopSignals

DEFAULT_API_PORT = 8321
BUCKET = "egrpo"
API_READY_TIMEOUT_S = 120.0
# A worker that is told to stop gives its trainer 60 s to write a checkpoint, and uploads it.
WORKER_GRACE_S = 90.0
RESTARTS_MAX, RESTARTS_WINDOW_S = 3, 300.0
SUPERVISE_EVERY_S = 0.5
# Once they answer, servers step back behind the trainer, which waits for the slower of its threads: they run where it
# leaves a gap. Niceness 5 gives them a quarter of a contested core, many times what they use.
SERVER_NICENESS = 5
# Twice the worker's default: each batch of news costs worker, database, api and client some milliseconds together,
# however much is in it, and here they are taken from the trainer.
PUBLISH_SECONDS = "2"

Told = Callable[[str], None]


@dataclasses.dataclass
class _Server:
    process: ServerProcess
    start: Callable[[], ServerProcess]
    restarts: list[float] = dataclasses.field(default_factory=list)


class LocalStack:
    """One run of the stack in a data folder."""

    def __init__(
        self, folder: StackFolder, signals: StopSignals, *, api_port: int | None = None, told: Told = print
    ) -> None:
        self.folder = folder
        self.signals = signals
        self.told = told
        self._wanted_api_port = api_port
        self._servers: dict[str, _Server] = {}
        self.state = StackState()
        self._guard: Guard | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[StackState]:
        """Starts the stack, yields its state once everything answers, and stops it.

        Raises:
            StackError: it cannot start; the message says why and what to do.
        """
        self.folder.prepare()
        with self.folder.held():
            self.state = self.folder.load()
            self._stop_leftovers()
            self._choose_ports()
            try:
                self._start()
                yield self.state
            finally:
                with self.signals.deferred():
                    self._stop()

    def supervise(self) -> None:
        """Restarts servers that end by themselves, until a stop is requested.

        Raises:
            ServerStartError: a server ended too often.
        """
        while True:
            time.sleep(SUPERVISE_EVERY_S)
            for name, server in list(self._servers.items()):
                if not server.process.is_running():
                    self._restart(name, server)

    def _start(self) -> None:
        self._guard = Guard(self.folder.logs / "guard.log")
        own = psutil.Process()
        self.state.supervisor = ProcessIdentity("supervisor", own.pid, own.create_time(), grace_s=WORKER_GRACE_S + 60)
        self._save("starting")
        self.told("starting PostgreSQL, Valkey, SeaweedFS and the API")
        self._start_servers()
        self.told("starting a worker")
        self._launch("worker", self._worker)
        self._launch("maintenance", self._maintenance)
        self._servers["api"].process.wait_ready(lambda: _is_ready(self.state.ports["api"]), API_READY_TIMEOUT_S)
        for name in ("worker", "maintenance"):
            self._servers[name].process.wait_ready(lambda: True, 0)
        for name, server in self._servers.items():
            if name != "worker":  # Its trainer would inherit the lower priority, and could not raise it again.
                server.process.step_back(SERVER_NICENESS)
        self._save("running")

    def _start_servers(self) -> None:
        state, home = self.state, self.folder.home
        weed_ports = {name: state.ports[name] for name in seaweed.PORT_NAMES}
        keys = seaweed.S3Credentials(state.secret("s3_access"), state.secret("s3_secret"))
        weed = self._launch("seaweedfs", lambda: seaweed.start(home / "s3", weed_ports, keys, self._log("seaweedfs")))
        broker = self._launch(
            "valkey",
            lambda: valkey.start(home / "valkey", state.ports["valkey"], state.secret("valkey"), self._log("valkey")),
        )
        self._start_database()
        # The api imports for seconds and refuses to be ready before there are tables: it may start beside all this.
        self._launch("api", self._api)
        self._run_once("migrations", ["-m", "migrations", "upgrade"])
        if state.api_key is None:
            state.api_key = self._create_key()
        valkey.wait_ready(broker, state.ports["valkey"])
        seaweed.wait_ready(weed, weed_ports)
        self._make_bucket(keys)

    def _start_database(self) -> None:
        port, data, log = self.state.ports["postgres"], self.folder.home / "postgres", self._log("postgres")
        superuser = self.state.secret("postgres_superuser")
        initdb = postgres.start_initdb(data, superuser, log)
        if initdb is not None:
            assert self._guard is not None
            self._guard.watch(initdb.process.identity)
            initdb.finish()
        server = self._launch("postgres", lambda: postgres.start(data, port, log, postgres.LOCAL_OPTIONS))
        postgres.wait_ready(server, port)
        postgres.create_role(port, superuser, self._role(), "egrpo")

    def _role(self) -> postgres.PostgresRole:
        return postgres.PostgresRole("egrpo", self.state.secret("postgres"))

    def _launch(self, name: str, start: Callable[[], ServerProcess]) -> ServerProcess:
        with self.signals.deferred():
            process = start()
            assert self._guard is not None
            self._guard.watch(process.identity)
            previous = self._servers.get(name)
            self._servers[name] = _Server(process, start, previous.restarts if previous else [])
            self._save(self.state.status)
        return process

    def _restart(self, name: str, server: _Server) -> None:
        now = time.monotonic()
        server.restarts = [at for at in server.restarts if now - at < RESTARTS_WINDOW_S]
        if len(server.restarts) >= RESTARTS_MAX:
            raise ServerStartError(
                f"{name} ended {RESTARTS_MAX + 1} times in {RESTARTS_WINDOW_S / 60:g} minutes, last with status "
                f"{server.process.returncode}. Its log: {server.process.log_path}"
            )
        self.told(f"{name} ended with status {server.process.returncode}; starting it again")
        server.process.stop()
        server.restarts.append(now)
        self._launch(name, server.start)

    def _api(self) -> ServerProcess:
        argv = ["-m", "api", "serve", "--host", LOOPBACK, "--port", str(self.state.ports["api"])]
        return self._service("api", argv, grace_s=10.0)

    def _worker(self) -> ServerProcess:
        return self._service("worker", ["-m", "worker"], grace_s=WORKER_GRACE_S)

    def _maintenance(self) -> ServerProcess:
        return self._service("maintenance", ["-m", "worker", "maintenance"], grace_s=10.0)

    def _service(self, name: str, argv: list[str], grace_s: float) -> ServerProcess:
        command = [sys.executable, "-P", *argv]  # -P: a folder `jobs` where the user stands must not shadow ours.
        return ServerProcess(name, command, self._log(name), env=self._env(), cwd=self.folder.home, grace_s=grace_s)

    def _run_once(self, name: str, argv: list[str]) -> str:
        """Runs one of our commands to its end and returns what it printed."""
        command = [sys.executable, "-P", *argv]
        env = {**os.environ, **self._env()}
        done = subprocess.run(command, env=env, cwd=self.folder.home, capture_output=True, text=True, check=False)
        with self._log(name).open("a") as log:
            log.write(done.stderr)
        if done.returncode != 0:
            said = "".join(f"\n    {line}" for line in done.stderr.splitlines()[-LOG_TAIL_LINES:])
            raise ServerStartError(f"`python {' '.join(argv)}` ended with status {done.returncode}:{said}")
        return done.stdout

    def _create_key(self) -> str:
        printed = self._run_once("create-key", ["-m", "jobs", "create-key", "--project", "default", "--name", "local"])
        return next(word for word in printed.split() if word.startswith("ega_"))

    def _make_bucket(self, keys: seaweed.S3Credentials) -> None:
        address = f"{LOOPBACK}:{self.state.ports['s3']}"
        client = minio.Minio(address, keys.access_key, keys.secret_key, secure=False, region="us-east-1")
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)

    def _env(self) -> dict[str, str]:
        state = self.state
        return {
            "EGRPO_DATABASE_URL": self._role().url(state.ports["postgres"], "egrpo"),
            "EGRPO_BROKER_URL": valkey.url(state.ports["valkey"], state.secret("valkey")),
            "EGRPO_S3_ENDPOINT": seaweed.endpoint(state.ports),
            "EGRPO_S3_ACCESS_KEY": state.secret("s3_access"),
            "EGRPO_S3_SECRET_KEY": state.secret("s3_secret"),
            "EGRPO_S3_BUCKET": BUCKET,
            "EGRPO_S3_REGION": "us-east-1",
            "EGRPO_SECRET_KEYS": base64.urlsafe_b64encode(bytes.fromhex(state.secret("sealing"))).decode(),
            "EGRPO_WORK_DIR": str(self.folder.home / "work"),
            "EGRPO_PUBLISH_SECONDS": os.environ.get("EGRPO_PUBLISH_SECONDS", PUBLISH_SECONDS),
        }

    def _log(self, name: str) -> Path:
        return self.folder.logs / f"{name}.log"

    def _choose_ports(self) -> None:
        """Keeps the ports of the last run that are still free, and replaces the others."""
        ports = self.state.ports
        names = ["postgres", "valkey", *seaweed.PORT_NAMES, "api"]
        for name, spare in zip(names, free_ports(len(names)), strict=True):
            if name not in ports or not keep(ports[name]):
                ports[name] = DEFAULT_API_PORT if name == "api" and is_free(DEFAULT_API_PORT) else spare
        if self._wanted_api_port is not None:
            require_free(self._wanted_api_port, "the API", "Stop it, or choose another port with --port.")
            ports["api"] = self._wanted_api_port
        self.state.url = f"http://{LOOPBACK}:{ports['api']}"

    def _stop_leftovers(self) -> None:
        """Stops what an earlier run left behind: its guard may still be at it, or was killed too."""
        leftovers = self.state.living()
        if leftovers:
            self.told("stopping what an earlier run left behind")
            stop_all(leftovers)

    def _stop(self) -> None:
        self._save("stopping")
        stop_all([server.process.identity for server in self._servers.values()], lambda n: self.told(f"stopping {n}"))
        for server in self._servers.values():
            server.process.stop()
        seaweed.remove_sockets(self.state.ports)
        if self._guard is not None:
            self._guard.close()
        self._servers.clear()
        self._save("stopped")

    def _save(self, status: str) -> None:
        self.state.status = status
        self.state.processes = [server.process.identity for server in self._servers.values()]
        self.folder.save(self.state)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
