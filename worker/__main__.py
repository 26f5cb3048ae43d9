"""`python -m worker` starts a worker; SIGTERM drains it: checkpoint, upload, job back to the queue, exit 0.

`python -m worker maintenance` starts a process that runs no jobs but what is due from time to time (`maintenance`); the
other commands are what an operator asks of workers that run (`operate`).
Celery's worker runs in the main thread and delivers hints. Whether it has a broker or not, the poller thread runs jobs.
"""

import logging
import signal
import sys
import warnings
from types import FrameType

from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.worker import state

from jobs.db import make_engine, make_session_factory
from jobs.errors import SettingsError
from jobs.settings import load
from jobs.store import ObjectStore
from worker import operate
from worker.app import QUEUE, create_app
from worker.maintenance import run_maintenance
from worker.run_folder import check_work_dir, sweep
from worker.runner import Runner
from worker.settings import WorkerSettings

log = logging.getLogger("worker")

_CELERY_RESTART_S = 5.0


def main(arguments: list[str]) -> int:
    """Runs a worker or a maintenance process until it is told to stop, or a command. Returns the exit code."""
    is_maintenance = arguments == ["maintenance"]
    if arguments and not is_maintenance:
        return operate.main(arguments)
    try:
        settings = load(WorkerSettings)
        if not is_maintenance:
            check_work_dir(settings.work_dir)
    except SettingsError as error:
        print(f"error: {error.detail}", file=sys.stderr)
        return 2
    configure_logging()
    return run_maintenance(settings) if is_maintenance else run_worker(settings)


def run_worker(settings: WorkerSettings) -> int:
    """Runs a worker until it is told to stop. Returns the process's exit code."""
    engine = make_engine(settings, application="egrpo-worker")
    runner = Runner(settings, make_session_factory(engine), ObjectStore(settings))
    drain_on_signals(runner)
    sweep(settings.work_dir)
    runner.start()
    gpu_type, num_gpus = runner.pool.gpu_type, runner.pool.num_gpus
    log.info("event=worker_started worker=%s gpu_type=%s num_gpus=%d", settings.worker_name, gpu_type, num_gpus)
    listen(create_app(settings.broker_url, runner.run_until_idle), runner)
    runner.join()
    engine.dispose()
    log.info("event=worker_stopped worker=%s", settings.worker_name)
    return 0


def configure_logging() -> None:
    """Logs as key=value, and keeps Celery from setting up logging of its own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s level=%(levelname)s logger=%(name)s %(message)s")
    signals.setup_logging.connect(lambda **_: None, weak=False)
    for chatty in ("celery", "kombu", "amqp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Celery warns root because of pickled messages; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def drain_on_signals(runner: Runner) -> None:
    """Drains on SIGTERM and SIGINT, before Celery has installed its own handlers and after.

    Celery's warm shutdown lets the running task end by itself, and the solo pool runs it in this process: the signal
    `worker_shutting_down` is raised here at once and makes it end.
    """

    def drain(number: int, frame: FrameType | None) -> None:
        runner.drain()
        state.should_stop = 0  # A Celery worker that is only starting stops as soon as it looks.

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, drain)
    signals.worker_shutting_down.connect(lambda **_: runner.drain(), weak=False)
    signals.worker_ready.connect(lambda **_: log.info("event=listening_for_hints"), weak=False)


def listen(app: Celery, runner: Runner) -> None:
    """Receives hints until the worker drains. A Celery worker that gives up on its broker is started anew."""
    while not runner.draining.is_set():
        worker = app.Worker(
            pool="solo",
            concurrency=1,
            queues=[QUEUE],
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        if not runner.draining.is_set():
            log.warning("event=celery_stopped exit_code=%s restarted_in_s=%s", worker.exitcode, _CELERY_RESTART_S)
            runner.draining.wait(_CELERY_RESTART_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
