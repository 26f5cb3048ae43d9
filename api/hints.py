"""Hints to the workers that there is work. The row in the database is the truth; a hint only saves a few seconds."""

from __future__ import annotations

import logging

from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

TASK = "worker.run_next"
QUEUE = "gpu"
QUEUE_TYPE = "quorum"  # Of RabbitMQ; Valkey and Redis have one type. The worker declares the same.
_TIMEOUT_S = 1.0
_FAILURES = (KombuError, RedisError, AMQPError, OSError)


class Hints:
    """Sends hints; never waits long and never fails."""

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("egrpo-api", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            task_default_queue=QUEUE,
            task_default_queue_type=QUEUE_TYPE,
            broker_connection_timeout=_TIMEOUT_S,
            broker_transport_options={
                "socket_connect_timeout": _TIMEOUT_S,
                "socket_timeout": _TIMEOUT_S,
                "max_retries": 1,
                "retry_on_timeout": False,
            },
        )

    def send(self) -> None:
        """Tells one worker to look for work. Called after the commit."""
        try:
            self._celery.send_task(TASK, queue=QUEUE, ignore_result=True, retry=False)
        except _FAILURES as error:
            log.warning("event=hint_not_sent error=%r", error)

    def ping(self) -> None:
        """Passes if the broker answers.

        Raises:
            ConnectionError: it does not.
        """
        try:
            with self._celery.connection_for_write(connect_timeout=_TIMEOUT_S) as connection:
                connection.ensure_connection(max_retries=1, timeout=_TIMEOUT_S, interval_start=0)
                if connection.transport.driver_type == "redis":  # Others have shaken hands by now.
                    with connection.channel() as channel:
                        channel.client.ping()
        except _FAILURES as error:
            raise ConnectionError("the broker does not answer") from error

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._celery.close()
