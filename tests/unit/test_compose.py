"""What the compose file must say, since no test can run it: whom it lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[2] / "docker/compose.yaml"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_every_published_port_is_the_hosts_own() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_api_believes_no_forwarded_address_unless_told_to() -> None:
    told = services()["api"]["environment"]
    assert told["FORWARDED_ALLOW_IPS"] == "${FORWARDED_ALLOW_IPS:-127.0.0.1}"
    assert told.items() >= services()["maintenance"]["environment"].items()
    assert "\nFORWARDED_ALLOW_IPS=\n" in COMPOSE.with_name("example.env").read_text()
