# ruff: noqa: SIM905  # A corpus reads better as words than as a list of one string a line.
"""The guard of outgoing requests: a corpus of URLs and addresses, and real servers on loopback."""

import datetime as dt
import email.utils
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.outbound import Outbound, OutboundFailed, OutboundRefused, is_public, retry_after_s

REFUSED_URLS = """
http://example.com/ ftp://example.com/ file:///etc/passwd https:// //example.com/ https://127.0.0.1/ https://2130706433/
https://0177.0.0.1/ https://0x7f.0.0.1/ https://0x7f000001/ https://127.1/ https://127.0.0.0x1/ https://[::1]/
https://[::ffff:127.0.0.1]/ https://[fe80::1%25eth0]/ https://u:p@example.com/ https://example.com@127.0.0.1/
https://@example.com/ https://example.com./ https://localhost/ https://example.com:22/ https://example.com:99999/
https://example.com:x/ https://example.com/#f https://exämple.com/ https://①②⑦.⓪.⓪.①/ https://example.com\\@127.0.0.1/
https://127。0。0。1/ https://%31%32%37.0.0.1/ https://-a.com/ https://a..com/ https://8.8.8.8/ https://a_b.com/
""".split()
INTERNAL = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 0.0.0.0 224.0.0.1 255.255.255.255
240.0.0.1 192.0.0.192 192.88.99.1 168.63.129.16 ::1 :: ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::8.8.8.8 fe80::1 fe80::1%eth0
fc00::1 fd00:ec2::254 ff02::1 2002:7f00:1::1 64:ff9b::7f00:1 64:ff9b:1::1 2001:0:1::1 2001:db8::1 3fff::1 nonsense
""".split()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def whole_request(connected: socket.socket) -> bytes:
    """Reads head and body: a server that closes with something unread resets the connection, answer or not."""
    with connected.makefile("rb") as reader:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := reader.readline()):
                raise ConnectionError("the client went away before it had asked")
            head += line
        length = next(line for line in head.splitlines() if line.lower().startswith(b"content-length:"))
        return head + reader.read(int(length.partition(b":")[2]))


@contextmanager
def serving(
    answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Yields the port of a server for one connection, and what it read."""
    read: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def serve() -> None:
            try:
                plain, _ = listening.accept()
                with tls.wrap_socket(plain, server_side=True) if tls else plain as connected:
                    connected.settimeout(60)
                    read.append(whole_request(connected))
                    answer(connected)
            except OSError:
                return  # The client went away, as some of these tests want.

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], read
        listening.close()
        thread.join()


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server named hooks.example.test and of a client that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    names = x509.SubjectAlternativeName([x509.DNSName("hooks.example.test")])
    pem = builder.add_extension(names, False).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.mark.parametrize("url", [*REFUSED_URLS, "https://exa\tmple.com/", "https://a.com/\r\nX: y", ""])
def test_refuses_the_url_before_any_look_up(url: str) -> None:
    with pytest.raises(OutboundRefused):
        Outbound(resolve=lambda host, port: pytest.fail("looked up")).post(url, b"", {})


@pytest.mark.parametrize("address", INTERNAL)
def test_refuses_a_host_with_one_internal_address(address: str) -> None:
    with pytest.raises(OutboundRefused, match="not public"):
        Outbound(resolve=lambda host, port: ["8.8.8.8", address]).post("https://example.com/", b"", {})


def test_public_addresses_and_names_pass() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")
    assert Outbound().check("https://Hooks.xn--exmple-cua.com:8443/a?b=c").host == "hooks.xn--exmple-cua.com"


def test_connects_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, connected = [["8.8.8.8"], ["127.0.0.1"]], []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(OutboundFailed):
        Outbound(resolve=lambda host, port: answers.pop(0)).post("https://rebinding.example.com/", b"", {})
    assert connected == [("8.8.8.8", 443)]


def test_tls_with_the_name_of_the_url_and_no_proxy(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for name, is_right in (("hooks.example.test", True), ("other.example.test", False)):
        with serving(lambda connected: connected.sendall(OK), contexts[0]) as (port, read):
            pair = f"{name}:{port}"
            guard = Outbound(frozenset({pair}), lambda host, port: ["127.0.0.1"], contexts[1])
            if is_right:
                assert guard.post(f"https://{pair}/x", b"hi", {"webhook-id": "1"}).body == b"ok"
                assert f"Host: {pair}\r\n".encode() in read[0]
            else:
                with pytest.raises(OutboundFailed, match="certificate"):
                    guard.post(f"https://{pair}/x", b"hi", {})


def test_a_redirect_is_an_answer_and_a_long_body_is_cut() -> None:
    moved = b"HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 9000\r\n\r\n" + b"a" * 9000
    with serving(lambda connected: connected.sendall(moved)) as (port, _):
        answer = Outbound(frozenset({f"127.0.0.1:{port}"})).post(f"http://127.0.0.1:{port}/", b"", {})
    assert (answer.status, len(answer.body)) == (307, 4096)


def test_the_time_that_a_receiver_asks_for_is_read_as_seconds_or_as_a_date() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    with serving(lambda connected: connected.sendall(busy)) as (port, _):
        answer = Outbound(frozenset({f"127.0.0.1:{port}"})).post(f"http://127.0.0.1:{port}/", b"", {})
    assert (answer.status, answer.retry_after_s) == (503, 120)
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert retry_after_s(email.utils.format_datetime(in_an_hour, usegmt=True)) == pytest.approx(3600, abs=60)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s(" 7 ") == 7
    assert retry_after_s("9" * 5000) == float("inf")


@pytest.mark.parametrize(
    "header",
    [None, "", "soon", "-5", "1.5", "²", "1e3", "nan", "Mon, 01 Jan 2024", "Mon, 01 Jan 99999 00:00:00 GMT",
     f"Mon, 01 Jan {'9' * 23} 00:00:00 GMT", f"Mon, 01 Jan 2024 00:00:00 +{'9' * 23}"],
)  # fmt: skip
def test_a_retry_after_that_is_neither_counts_as_none(header: str | None) -> None:
    assert retry_after_s(header) is None


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"])
def test_a_slow_drip_ends_at_the_deadline(start: bytes) -> None:
    drops: list[bytes] = []

    def drip(connected: socket.socket) -> None:
        connected.sendall(start)
        for _ in range(400):
            time.sleep(0.05)
            connected.sendall(b"a")
            drops.append(b"a")

    with serving(drip) as (port, _), pytest.raises(OutboundFailed):
        Outbound(frozenset({f"127.0.0.1:{port}"}), deadline_s=0.4).post(f"http://127.0.0.1:{port}/", b"", {})
    assert len(drops) < 100, "eight fall before the deadline; the clock goes on for a machine that stands still"
