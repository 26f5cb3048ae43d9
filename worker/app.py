"""The Celery application. PostgreSQL is the truth; a message is a hint that work exists.

Nothing is lost with a message: the worker also looks into the database by itself. So there is no result backend, no
late acknowledgement and no prefetching, and with them go Redis' visibility timeout and RabbitMQ's consumer timeout,
which would hand a job that runs for hours to a second worker.

On RabbitMQ the queue is a durable quorum queue, which every version since 3.8 has, and which makes Celery limit the
prefetching of a consumer instead of a channel: so the worker needs neither `global_qos` nor
`transient_nonexcl_queues`, the deprecated features that RabbitMQ 4.3 no longer permits of itself. There one message is
fetched ahead while a job runs. The solo pool sends no AMQP heartbeats meanwhile, so RabbitMQ ends the connection after
some minutes and gives that message to another worker; this one connects again after its job.
"""

from collections.abc import Callable

from celery import Celery

TASK_RUN_NEXT = "worker.run_next"
QUEUE = "gpu"
QUEUE_TYPE = "quorum"  # Of RabbitMQ; Valkey and Redis have one type. The API declares the same.


def create_app(broker_url: str, run_until_idle: Callable[[], None]) -> Celery:
    """Returns the application with its one task.

    Args:
        broker_url: Where the hints come from.
        run_until_idle: Called for every hint, in the main thread; it returns when no job is eligible.

    Returns:
        The application; `python -m worker` starts a worker of it.
    """
    app = Celery("egrpo", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=QUEUE,
        task_default_queue_type=QUEUE_TYPE,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_concurrency=1,
        worker_pool="solo",
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # For ever: a broker that is down delays hints and nothing else.
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )

    app.task(name=TASK_RUN_NEXT)(run_until_idle)
    return app
