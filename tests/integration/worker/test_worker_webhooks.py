"""Webhooks on their way: from the transaction of an event, past the guard, to a real receiver that may misbehave."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter
from sqlalchemy import func, select, text, update
from standardwebhooks import Webhook
from worker_bench import Bench, wait_for

from api.webhooks.messages import CheckpointMessage, JobMessage, PingMessage
from jobs import api_keys, deliveries, jobs, webhooks
from jobs.db import make_engine, make_session_factory, transaction
from jobs.outbound import Outbound
from jobs.rekey import rekey
from jobs.sealing import Sealer, new_key
from jobs.spec import parse
from jobs.tables import Base, WebhookDelivery, WebhookEndpoint
from worker.webhooks import Sender

DESCRIBED: TypeAdapter[Any] = TypeAdapter(JobMessage | CheckpointMessage | PingMessage)
Answering = Callable[[int], int]  # From the number of the request, from 1, to the status.


@dataclass
class Receiver:
    """A receiver of webhooks: what came, and what it answers."""

    port: int = 0
    answering: Answering = lambda number: 204
    retry_after: str | None = None
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def told(self) -> list[Any]:
        return [json.loads(body) for body in self.bodies]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers in self.headers]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            receiver.bodies.append(body)
            status = receiver.answering(len(receiver.bodies))
            if status == 0:  # It hangs.
                receiver.hold.wait()
                return
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/")
            if receiver.retry_after is not None:
                self.send_header("Retry-After", receiver.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    receiver.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Post:
    """An endpoint of the default project, and the process that sends."""

    def __init__(self, bench: Bench, receiver: Receiver) -> None:
        key = new_key()
        changes = {
            "secret_keys": SecretStr(key),
            "outbound_allow_list": f"127.0.0.1:{receiver.port}",
            "webhook_retry_seconds": (0.05, 0.05),
            "webhook_deadline_seconds": 30.0,
        }
        bench.settings = bench.settings.model_copy(update=changes)
        self.bench = bench
        self.sealer = Sealer((key,))
        self.endpoint_id, self.secret = self.make(receiver.url)
        self.sender = self.new_sender()

    def new_sender(self, **changes: Any) -> Sender:
        settings = self.bench.settings.model_copy(update=changes)
        outbound = Outbound(settings.outbound_pairs(), deadline_s=settings.webhook_deadline_seconds)
        return Sender(self.bench.sessions, settings, outbound)

    def make(self, url: str, *events: str) -> tuple[str, str]:
        with transaction(self.bench.sessions) as session:
            project = api_keys.project_named(session, "default")
            endpoint, secret = webhooks.create(
                session, self.sealer, project, url=url, events=events or ["*"], description=""
            )
            return endpoint.id, secret

    def ping(self, endpoint_id: str | None = None) -> str:
        with transaction(self.bench.sessions) as session:
            endpoint = session.get(WebhookEndpoint, endpoint_id or self.endpoint_id)
            assert endpoint is not None
            return deliveries.ping(session, endpoint).id

    def delivery(self, message_id: str) -> WebhookDelivery:
        with transaction(self.bench.sessions) as session:
            delivery = session.get(WebhookDelivery, message_id)
            assert delivery is not None
            return delivery

    def endpoint(self) -> WebhookEndpoint:
        with transaction(self.bench.sessions) as session:
            endpoint = session.get(WebhookEndpoint, self.endpoint_id)
            assert endpoint is not None
            return endpoint

    def send_until(self, condition: Callable[[], Any]) -> Any:
        def sent() -> Any:
            self.sender.send_due()
            return condition()

        return wait_for(sent)

    def send_until_it_is(self, message_id: str, status: str) -> WebhookDelivery:
        self.send_until(lambda: self.delivery(message_id).status == status)
        return self.delivery(message_id)


@pytest.fixture
def post(bench: Bench, receiver: Receiver) -> Post:
    return Post(bench, receiver)


def assert_is_in(seconds: float, moment: datetime | None) -> None:
    """Fails unless the moment lies that far ahead, give or take jitter and a slow machine."""
    assert moment is not None
    assert (moment - datetime.now(UTC)).total_seconds() == pytest.approx(seconds, rel=0.12, abs=20)


def test_a_jobs_way_is_told_in_order_and_verifies_with_the_published_library(
    bench: Bench, post: Post, receiver: Receiver
) -> None:
    job_id = bench.submit()
    bench.run()
    expected = ["job.queued", "job.running", *["checkpoint.created"] * 4, "job.succeeded"]
    post.send_until(lambda: len(receiver.bodies) >= len(expected))
    assert [each["type"] for each in receiver.told()] == expected
    assert all(each["data"]["job_id"] == job_id for each in receiver.told())
    assert receiver.ids() == sorted(set(receiver.ids()))
    for body, headers in zip(receiver.bodies, receiver.headers, strict=True):
        assert Webhook(post.secret).verify(body, headers) == json.loads(body)
    assert receiver.told()[-1]["data"]["status"] == "succeeded"
    for message in receiver.told():
        DESCRIBED.validate_python(message)


def test_what_is_rolled_back_is_told_nobody(bench: Bench, post: Post) -> None:
    spec = parse({"name": "x", "base_model": "tiny-flux-shapes", "prompts": {"inline": ["a red circle"]},
                  "reward": {"components": [{"type": "shapes"}]}})  # fmt: skip

    def create_and_fail() -> None:
        with transaction(bench.sessions) as session:
            jobs.create(session, api_keys.project_named(session, "default"), spec)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    with transaction(bench.sessions) as session:
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


def test_a_message_is_sent_again_with_its_id_until_it_is_taken(post: Post, receiver: Receiver) -> None:
    receiver.answering = lambda number: (500, 302, 200)[number - 1]
    message_id = post.ping()
    delivery = post.send_until_it_is(message_id, "delivered")
    assert (delivery.attempts, delivery.response_status) == (3, 200)
    DESCRIBED.validate_python(receiver.told()[0])
    assert receiver.ids() == [message_id] * 3, "a redirect is a failure and is not followed"
    assert len(set(receiver.bodies)) == 1
    assert post.endpoint().failing_since is None


def test_a_message_that_nobody_takes_fails_and_can_be_sent_again(post: Post, receiver: Receiver) -> None:
    receiver.answering = lambda number: 500 if number <= 3 else 204
    message_id = post.ping()
    assert post.send_until_it_is(message_id, "failed").attempts == 3
    assert post.endpoint().failing_since is not None
    with transaction(post.bench.sessions) as session:
        deliveries.send_again(session, post.endpoint(), message_id)
    assert post.send_until_it_is(message_id, "delivered").attempts == 1
    assert receiver.ids() == [message_id] * 4
    assert post.endpoint().failing_since is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_time_is_left_alone_until_then(post: Post, receiver: Receiver, status: int) -> None:
    post.sender = post.new_sender(webhook_retry_seconds=(1.0, 3600.0))
    receiver.answering = lambda number: status if number == 1 else 204
    receiver.retry_after = "600"
    first = post.ping()
    post.send_until(lambda: post.endpoint().held_until is not None)
    second = post.ping()
    assert post.sender.send_due() == 0, "nor is anything else sent to it"
    assert_is_in(600, post.delivery(first).next_attempt_at)
    assert_is_in(600, post.endpoint().held_until)
    with transaction(post.bench.sessions) as session:
        past = func.now() - timedelta(seconds=1)
        session.execute(update(WebhookEndpoint).values(held_until=past))
        session.execute(update(WebhookDelivery).values(next_attempt_at=past))
    assert post.send_until_it_is(first, "delivered").attempts == 2
    assert post.send_until_it_is(second, "delivered").attempts == 1
    assert post.endpoint().held_until is None


@pytest.mark.parametrize(
    ("retry_after", "waits_s"), [("1", 60), ("1790000000", 3600), ("9" * 400, 3600), ("soon", 60), (None, 60)]
)
def test_asking_for_time_shortens_no_pause_of_ours_and_lengthens_it_to_our_longest_at_most(
    post: Post, receiver: Receiver, retry_after: str | None, waits_s: float
) -> None:
    post.sender = post.new_sender(webhook_retry_seconds=(60.0, 3600.0))
    receiver.answering, receiver.retry_after = lambda number: 503, retry_after
    message_id = post.ping()
    post.send_until(lambda: post.delivery(message_id).response_status == 503)
    assert_is_in(waits_s, post.delivery(message_id).next_attempt_at)


def test_a_retry_after_of_another_failure_and_of_a_last_attempt_moves_no_message(
    post: Post, receiver: Receiver
) -> None:
    receiver.answering, receiver.retry_after = lambda number: 500, "600"
    assert post.send_until_it_is(post.ping(), "failed").attempts == 3
    assert post.endpoint().held_until is None
    post.sender = post.new_sender(webhook_retry_seconds=())
    receiver.answering = lambda number: 503
    assert post.send_until_it_is(post.ping(), "failed").attempts == 1
    assert post.endpoint().held_until is None, "it may be left alone as long as our longest pause, and there is none"


def test_an_endpoint_that_is_enabled_again_is_asked_at_once(post: Post, receiver: Receiver) -> None:
    post.sender = post.new_sender(webhook_retry_seconds=(1.0, 3600.0))
    receiver.answering, receiver.retry_after = lambda number: 503 if number == 1 else 204, "600"
    post.ping()
    post.send_until(lambda: post.endpoint().held_until is not None)
    with transaction(post.bench.sessions) as session:
        project = api_keys.project_named(session, "default")
        webhooks.change(session, project, post.endpoint_id, enabled=True)
    assert post.send_until_it_is(post.ping(), "delivered").attempts == 1


def test_an_endpoint_that_fails_for_too_long_is_disabled_and_one_that_is_gone_at_once(
    post: Post, receiver: Receiver
) -> None:
    receiver.answering = lambda number: 503
    post.send_until_it_is(post.ping(), "failed")
    assert post.endpoint().disabled_at is None
    with transaction(post.bench.sessions) as session:
        session.execute(update(WebhookEndpoint).values(failing_since=func.now() - timedelta(days=6)))
    message_id = post.ping()
    post.send_until(lambda: post.endpoint().disabled_reason == "failing")
    with transaction(post.bench.sessions) as session:
        project = api_keys.project_named(session, "default")
        assert webhooks.change(session, project, post.endpoint_id, enabled=True).failing_since is None
    receiver.answering = lambda number: 410
    assert post.send_until_it_is(message_id, "failed").response_status == 410
    assert post.endpoint().disabled_reason == "gone"


def test_addresses_that_only_we_can_reach_are_refused_when_it_is_sent(post: Post, receiver: Receiver) -> None:
    """The allow-list was shortened since; the guard's corpus has its own test."""
    post.sender = post.new_sender(outbound_allow_list="")
    delivery = post.send_until_it_is(post.ping(), "failed")
    assert "must be https" in str(delivery.error)
    assert receiver.bodies == []


def test_a_receiver_that_hangs_holds_up_no_other(post: Post, receiver: Receiver) -> None:
    receiver.answering = lambda number: 0 if number == 1 else 204
    hanging = post.ping()
    post.send_until(lambda: len(receiver.bodies) == 1)
    more = post.ping()
    other, _ = post.make(receiver.url)
    quick = post.ping(other)
    assert post.send_until_it_is(quick, "delivered").attempts == 1
    assert (post.delivery(hanging).status, post.delivery(more).attempts) == ("pending", 0), "one at a time"
    receiver.hold.set()
    assert post.send_until_it_is(hanging, "delivered").attempts == 2
    assert post.send_until_it_is(more, "delivered").attempts == 1


def test_two_senders_take_a_message_once_and_one_that_died_is_followed(post: Post, receiver: Receiver) -> None:
    message_id = post.ping()
    with transaction(post.bench.sessions) as session:
        (taken,) = deliveries.take(session, limit=5)
    assert taken.id == message_id
    assert post.sender.send_due() == 0
    with transaction(post.bench.sessions) as session:  # Its minute is over.
        session.execute(update(WebhookDelivery).values(next_attempt_at=func.now()))
    assert post.send_until_it_is(message_id, "delivered").attempts == 2
    late = deliveries.Outcome(500, None)
    with transaction(post.bench.sessions) as session:  # It was not dead: what it notes is too late.
        deliveries.note(session, taken, late, deliveries.Patience([], timedelta(0)))
    assert post.delivery(message_id).status == "delivered"
    assert post.endpoint().failing_since is None


def test_senders_that_take_at_the_same_time_send_each_message_once(post: Post, receiver: Receiver) -> None:
    """Two maintenance processes overlap when one of them hung for longer than its lease."""
    engine = make_engine(post.bench.settings.model_copy(update={"database_pool_size": 40}))
    post.bench.engines.append(engine)
    post.bench.sessions = make_session_factory(engine)  # With a connection for each message: none waits for another.
    endpoints = [post.endpoint_id, *(post.make(receiver.url)[0] for _ in range(5))]
    with transaction(post.bench.sessions) as session:
        rows = [session.get(WebhookEndpoint, endpoint_id) for endpoint_id in endpoints]
        sent = [deliveries.ping(session, row).id for row in rows * 10 if row is not None]
    senders = [post.new_sender(webhook_retry_seconds=(1000.0,)) for _ in range(4)]
    ended = threading.Event()

    def go_on(sender: Sender) -> None:
        while not ended.is_set():
            sender.send_due()

    threads = [threading.Thread(target=go_on, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(receiver.bodies) >= len(sent))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    wait_for(lambda: all(post.delivery(message_id).status == "delivered" for message_id in sent))
    assert sorted(receiver.ids()) == sorted(sent)


def test_after_a_rotation_both_secrets_verify_and_after_the_overlap_the_new_one(post: Post, receiver: Receiver) -> None:
    def rotate(overlap: timedelta) -> str:
        with transaction(post.bench.sessions) as session:
            project = api_keys.project_named(session, "default")
            return webhooks.rotate_secret(session, post.sealer, project, post.endpoint_id, overlap=overlap)[1]

    second = rotate(timedelta(hours=1))
    post.send_until_it_is(post.ping(), "delivered")
    for secret in (post.secret, second):
        Webhook(secret).verify(receiver.bodies[0], receiver.headers[0])
    third = rotate(timedelta(0))
    post.send_until_it_is(post.ping(), "delivered")
    assert receiver.headers[1]["webhook-signature"].count("v1,") == 1
    Webhook(third).verify(receiver.bodies[1], receiver.headers[1])


def test_secrets_of_endpoints_lie_nowhere_as_they_are_and_survive_a_new_key(
    post: Post, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    new = Sealer((new_key(), *post.sealer.keys))
    assert rekey(post.bench.sessions, new) == 1
    post.sender = post.new_sender(secret_keys=SecretStr(new.keys[0]))
    post.send_until_it_is(post.ping(), "delivered")
    Webhook(post.secret).verify(receiver.bodies[0], receiver.headers[0])
    with transaction(post.bench.sessions) as session:
        rows = [session.scalars(text(f"SELECT t::text FROM {name} t")).all() for name in Base.metadata.tables]
    assert post.secret.removeprefix("whsec_") not in str(rows) + caplog.text


def test_old_messages_are_forgotten_unless_they_wait(post: Post) -> None:
    sent = post.ping()
    post.send_until_it_is(sent, "delivered")
    waiting = post.ping()
    with transaction(post.bench.sessions) as session:
        session.execute(update(WebhookDelivery).values(created_at=func.now() - timedelta(days=31)))
        assert deliveries.forget(session, timedelta(days=30)) == 1
    assert post.delivery(waiting).status == "pending"


def test_the_maintenance_process_sends_and_ends_while_a_receiver_hangs(
    post: Post, receiver: Receiver, service_env: dict[str, str], tmp_path: Path
) -> None:
    receiver.answering = lambda number: 204 if number == 1 else 0
    env = {
        "EGRPO_SECRET_KEYS": post.sealer.keys[0],
        "EGRPO_OUTBOUND_ALLOW_LIST": f"127.0.0.1:{receiver.port}",
        "EGRPO_WEBHOOK_POLL_SECONDS": "0.1",
        "EGRPO_WEBHOOK_DEADLINE_SECONDS": "30",
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "maintenance"],
            env={**os.environ, **service_env, **env}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        first = post.ping()
        wait_for(lambda: post.delivery(first).status == "delivered")
        second = post.ping()
        wait_for(lambda: len(receiver.bodies) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        left = post.delivery(second)
        assert (left.status, left.attempts, left.error) == ("pending", 1, None), "it was not waited for"
    finally:
        process.kill()
        process.wait()
