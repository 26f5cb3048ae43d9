"""RabbitMQ in the place of Valkey: hints arrive, and a connection that breaks during a job is made again."""

from collections.abc import Iterator

import pytest
from breakable import Breakable
from celery.utils.quorum_queues import detect_quorum_queues
from rabbitmq import RabbitMQ, is_installed
from worker_bench import Bench, Start, wait_for

from api.hints import Hints
from egrpo_client.stack.ports import free_ports
from worker.app import create_app

NEVER = "1000"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    if not is_installed():
        pytest.skip("RabbitMQ is not installed: apt-get install rabbitmq-server")
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    yield node
    node.stop()


def hint(url: str) -> None:
    hints = Hints(url)
    hints.send()
    hints.close()


def test_hints_wake_a_worker_also_after_its_connection_broke_during_a_job(
    bench: Bench, start: Start, rabbitmq: RabbitMQ
) -> None:
    """RabbitMQ itself ends a connection without heartbeats, and a job of the solo pool sends none."""
    link = Breakable(rabbitmq.url)
    bench.script(steps=100, step_seconds=0.02)
    start(EGRPO_POLL_SECONDS=NEVER, EGRPO_BROKER_URL=link.url)
    wait_for(lambda: "listening_for_hints" in bench.log_of("worker.log"))
    first = bench.submit()
    hint(rabbitmq.url)
    wait_for(lambda: bench.job(first).status == "running")
    link.cut()
    link.mend()
    wait_for(lambda: bench.job(first).status == "succeeded")
    bench.script()
    second = bench.submit()
    hint(rabbitmq.url)
    wait_for(lambda: bench.job(second).status == "succeeded", seconds=120)
    link.close()
    assert len(bench.attempts(first)) == 1
    queues = {each["name"]: each for each in rabbitmq.queues()}
    assert queues["gpu"]["type"] == "quorum"
    assert all(each["durable"] for each in queues.values()), "RabbitMQ 4.3 has no transient queues"


def test_readiness_asks_rabbitmq(rabbitmq: RabbitMQ) -> None:
    hints = Hints(rabbitmq.url)
    hints.ping()
    hints.close()


def test_a_rabbitmq_that_is_away_delays_a_request_by_little_and_fails_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a connection is refused, the pauses before the next try are what takes time: they are added up."""
    pauses: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", pauses.append)
    (port,) = free_ports(1)
    hints = Hints(f"amqp://egrpo:secret@127.0.0.1:{port}//")
    hints.send()
    with pytest.raises(ConnectionError, match="does not answer"):
        hints.ping()
    assert sum(pauses) < 5
    hints.close()


def test_the_worker_limits_what_a_consumer_fetches_and_not_the_channel() -> None:
    """Global limits, which RabbitMQ 4.3 refuses, are what Celery asks for unless it sees a quorum queue."""
    app = create_app("amqp://127.0.0.1//", lambda: None)
    assert detect_quorum_queues(app, "amqp") == (True, "gpu")
