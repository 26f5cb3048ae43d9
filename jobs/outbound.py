# ruff: noqa: N818  # The names say what happened, as in `jobs.errors`.
"""Requests to addresses that users name: the guard against reaching what only we can reach (SSRF).

`Outbound.check` says what is wrong with a URL, `Outbound.post` sends one request: it reads the URL strictly,
resolves its host once, refuses it if any address is not public, and connects to an address of that same answer. A
resolver that would answer otherwise is not asked again. The certificate and `Host` are those of the name.
Redirects are answers like any other, and proxies of the environment are not read (http.client knows of neither).
Does not sign, retry or log; makes no request inside a database transaction, and neither may its callers.
The resolver's own time-out bounds the look-up; everything after it is under one deadline.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

PORTS = frozenset({443, 8443})
MAX_URL_LENGTH = 2048
# Two labels or more, the last one alphabetic or punycode: no notation of an IP address ends so.
HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{1,58}[a-z0-9])"
)
URL_CHARACTERS = re.compile(r"[!-~]+")  # printable ASCII: urlsplit would drop tabs and newlines in silence
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out; NAT64, mapped and local ones lie outside
# What `is_global` of this Python lets through, or what carries another address inside.
REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, among them a metadata service
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # a metadata service with a public address
        "240.0.0.0/4",
        "2001::/23",  # Teredo and other assignments
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)

Resolver = Callable[[str, int], list[str]]


class OutboundRefused(ValueError):
    """The URL, or an address of its host, is not one that we send requests to; trying again does not help."""


class OutboundFailed(OSError):
    """There was no whole answer: look-up, connection, certificate, protocol or deadline; may succeed later."""


@dataclass(frozen=True)
class Answer:
    """What the receiver answered: status, beginning of the body, and after how many seconds it wants to be asked again.

    `retry_after_s` is 0 or more, infinite for more than a number can say, and None where it named no time.
    """

    status: int
    body: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Target:
    """A URL that was read: where to connect and what to ask for."""

    scheme: str
    host: str
    port: int
    path: str
    is_allow_listed: bool


def system_addresses(host: str, port: int) -> list[str]:
    """Returns the addresses of the host, as the system resolves it."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Says whether the address is one of the public internet, and carries no other address inside."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and (ip.scope_id is not None or ip not in PUBLIC_V6):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in REFUSED)


@dataclass(frozen=True)
class Outbound:
    """Sends requests to public https addresses, and to the `host:port` pairs that an operator allow-lists.

    An allow-listed pair may be http, private, or an IP literal. Webhooks use this; remote rewards are to use it too.
    """

    allow_list: frozenset[str] = frozenset()
    resolve: Resolver = system_addresses
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    deadline_s: float = 15.0
    max_answer_bytes: int = 4096

    def check(self, url: str) -> Target:
        """Returns what the URL asks for, without any look-up.

        Raises:
            OutboundRefused: The URL is not one that we send requests to; the message says what is allowed.
        """
        if len(url) > MAX_URL_LENGTH or not URL_CHARACTERS.fullmatch(url) or "\\" in url:
            raise OutboundRefused(f"a URL has at most {MAX_URL_LENGTH} printable ASCII characters and no backslash")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise OutboundRefused(f"not a URL: {error}") from None
        if "@" in parts.netloc or "#" in url:
            raise OutboundRefused("a URL must carry neither user information nor a fragment")
        port = port if port is not None else {"http": 80}.get(parts.scheme, 443)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = Target(parts.scheme, host, port, path, f"{host}:{port}" in self.allow_list)
        _refuse_unless_public(target)
        return target

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Returns what the URL answered to one POST.

        Raises:
            OutboundRefused: The URL or an address of its host is not allowed; nothing was sent.
            OutboundFailed: There was no whole answer before the deadline.
        """
        target = self.check(url)
        try:
            addresses = self.resolve(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise OutboundFailed(f"{target.host} has no address: {error}") from error
        if not addresses:
            raise OutboundFailed(f"{target.host} has no address")
        if not target.is_allow_listed and not all(is_public(address) for address in addresses):
            raise OutboundRefused(f"{target.host} has an address that is not public")
        ends_at = time.monotonic() + self.deadline_s
        try:
            with socket.create_connection((addresses[0], target.port), timeout=self.deadline_s) as connected:
                return self._exchange(connected, target, body, headers, ends_at)
        except (OSError, http.client.HTTPException) as error:
            raise OutboundFailed(f"{target.host}: {error or type(error).__name__}") from error

    def _exchange(
        self, connected: socket.socket, target: Target, body: bytes, headers: Mapping[str, str], ends_at: float
    ) -> Answer:
        """Speaks on the connection, which is cut at the deadline however slowly the other side drips."""
        watched = connected.dup()
        is_cut = threading.Event()
        timer = threading.Timer(max(0.0, ends_at - time.monotonic()), _cut, (watched, is_cut))
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(target.host, target.port)
        try:
            is_tls = target.scheme == "https"
            connection.sock = self.tls.wrap_socket(connected, server_hostname=target.host) if is_tls else connected
            default_port = 443 if is_tls else 80
            host = target.host if target.port == default_port else f"{target.host}:{target.port}"
            connection.request("POST", target.path, body, {**headers, "Host": host, "Connection": "close"})
            with connection.getresponse() as response:
                asked_s = retry_after_s(response.getheader("Retry-After"))
                answer = Answer(response.status, response.read(self.max_answer_bytes), asked_s)
        finally:
            timer.cancel()
            connection.close()
            watched.close()
        if is_cut.is_set():
            raise TimeoutError(f"no whole answer within {self.deadline_s} s")
        return answer


def retry_after_s(header: str | None) -> float | None:
    """Returns the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3), or None if it is neither."""
    said = (header or "").strip()
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        moment = email.utils.parsedate_to_datetime(said)
        return max((moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):  # A year or an offset of twenty digits is no reason to lose the message.
        return None


def _refuse_unless_public(target: Target) -> None:
    if target.is_allow_listed and target.scheme in ("http", "https"):
        return
    if target.scheme != "https":
        raise OutboundRefused(f"the scheme is {target.scheme!r}; it must be https")
    if not HOST.fullmatch(target.host):
        raise OutboundRefused(f"{target.host!r} is not a public host name (no IP addresses, no trailing dot, punycode)")
    if target.port not in PORTS:
        raise OutboundRefused(f"the port is {target.port}; it must be one of {sorted(PORTS)}")


def _cut(watched: socket.socket, is_cut: threading.Event) -> None:
    is_cut.set()
    try:
        watched.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # The other side, or the end of the exchange, was quicker.
