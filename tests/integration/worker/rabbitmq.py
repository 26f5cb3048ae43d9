"""RabbitMQ as Debian packages it, run from its own folder on free ports: its own epmd, its own user, no plugins."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from egrpo_client.stack.ports import free_ports

SERVER = Path(
    "/usr/lib/rabbitmq/bin/rabbitmq-server"
)  # The one in /usr/sbin wants to be root and becomes another user.
_READY_S = 120.0


def is_installed() -> bool:
    """Returns whether Debian's rabbitmq-server, or one in the same place, is here."""
    return SERVER.exists() and shutil.which("epmd") is not None


class RabbitMQ:
    """One node. `url` is the broker's; `stop` leaves no process behind."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port, distribution, epmd = free_ports(3)
        password = secrets.token_urlsafe(16)
        self.url = f"amqp://egrpo:{password}@127.0.0.1:{self._port}//"
        (home / "plugins").write_text("[].")
        (home / "rabbit.conf").write_text(f"default_user = egrpo\ndefault_pass = {password}\n")
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": "egrpo@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(home / "db"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbit"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        }
        self._log = (home / "server.log").open("wb")
        self._epmd = self._start("epmd")
        self._server = self._start(str(SERVER))
        self._wait()

    def _start(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [command], env=self._env, cwd=self._home, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._home / "server.log").read_text())
            time.sleep(0.1)

    def queues(self) -> list[dict[str, Any]]:
        """Returns name, type and durability of every queue."""
        command = [
            str(SERVER.with_name("rabbitmqctl")),
            "list_queues",
            "name",
            "type",
            "durable",
            "--formatter",
            "json",
        ]
        output = subprocess.run(command, env=self._env, check=True, capture_output=True, text=True).stdout
        found: list[dict[str, Any]] = json.loads(output)
        return found

    def stop(self) -> None:
        """Ends the node at once; nothing of it is needed any more."""
        for process in (self._server, self._epmd):
            os.killpg(process.pid, signal.SIGKILL)  # The server's command is a shell script.
            process.wait()
        self._log.close()
