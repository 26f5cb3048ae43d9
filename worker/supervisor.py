"""Runs one claimed job: restore, train, publish, settle.

Who runs at the same time: the trainer (a process), its reader threads (`trainer`, `output`), the heartbeat
(`heartbeat`), three publishing threads (`publisher`), and the thread that called `run`, which only watches and
decides. It touches neither database nor store while the trainer runs, so that nothing can keep it from ending the
trainer in time.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum

from pydantic import ValidationError
from sqlalchemy.orm import Session

from jobs import datasets, events, leases, secrets
from jobs.db import SessionFactory, transaction
from jobs.errors import (
    DatabaseUnavailable,
    LeaseLost,
    NotFound,
    SealedUnreadable,
    SealingNotConfigured,
    SecretMissing,
)
from jobs.leases import Claim
from jobs.sealing import Sealer
from jobs.spec import hub_repo
from jobs.states import Desired, Status, StatusReason
from jobs.store import ObjectStore
from jobs.tables import Document, Job
from worker import outcome
from worker.command import command_for, environment_for, of_first_rank
from worker.fence import Fence
from worker.files import FilePublisher, Spooled
from worker.heartbeat import Heartbeat
from worker.job_log import JobLog
from worker.model_cache import ModelCache
from worker.outcome import Reason
from worker.protocol import (
    ArtifactEvent,
    CheckpointEvent,
    ErrorEvent,
    LogEvent,
    ProgressEvent,
    SampleEvent,
    TrainerEvent,
)
from worker.publisher import Lane
from worker.restore import Interrupted, restore, waiting
from worker.rows import RowEvent, RowWriter
from worker.run_folder import RunFolder, free_bytes
from worker.settings import WorkerSettings
from worker.stall import StallDetector
from worker.trainer import Trainer, TrainerExit

log = logging.getLogger(__name__)

_WATCH_S = 0.5  # The end of the trainer is noticed at once; this is for all else.
_DRAIN_S = 0.02
_SETTLE_RETRY_S = 0.5
_LAST_WORDS_CHARS = 8_000  # Enough for the stacks of a stalled trainer's threads.
# Files go up in small batches: one transaction for the samples of an evaluation, but soon visible.
_FILES_PER_BATCH = 16
_ROWS_PER_BATCH = 512
_PREEMPTED = Reason("preempted", "the worker was shut down; the job goes on from its last checkpoint", retryable=True)


class Stop(Enum):
    """Why the trainer is being ended by us."""

    ASKED = "the job's owner asked for it"
    DRAINING = "this worker is shutting down"
    STALLED = "no step for too long"
    PUBLISHING = "its results cannot be published"
    LEASE_LOST = "the lease is lost"


class Supervisor:
    """One attempt of one job, from the claim to the row's new status."""

    def __init__(
        self,
        settings: WorkerSettings,
        sessions: SessionFactory,
        store: ObjectStore,
        claim: Claim,
        *,
        claimed_at: float,
        draining: threading.Event,
    ) -> None:
        """Prepares the attempt; nothing runs before `run`.

        Args:
            settings: The worker's settings.
            sessions: Makes database sessions.
            store: The object store.
            claim: The job.
            claimed_at: `time.monotonic()` from before the claim was sent.
            draining: Set when the worker is to shut down.
        """
        self._settings = settings
        self._sessions = sessions
        self._claim = claim
        self._draining = draining
        self._folder = RunFolder(settings.work_dir, claim)
        self._heartbeat = Heartbeat(
            self._renew, lease_s=settings.lease_seconds, interval_s=settings.heartbeat_seconds, claimed_at=claimed_at
        )
        self._stall = StallDetector(settings.stall_seconds)
        self._store = store
        self._fence = Fence(claim, self._heartbeat)
        self._row_lane: Lane[RowEvent] = Lane(
            "rows",
            RowWriter(sessions, self._fence).publish,
            self._heartbeat,
            max_batch=_ROWS_PER_BATCH,
            gather_s=settings.publish_seconds,
        )
        self._files = FilePublisher(sessions, store, claim, self._fence, self._folder.path, self._row_lane)
        self._file_lane: Lane[Spooled] = Lane(
            "files", self._files.publish, self._heartbeat, max_batch=_FILES_PER_BATCH, gather_s=0.0
        )
        self._log = JobLog(settings, sessions, claim, self._fence, self._heartbeat)
        self._oom_kills_before = 0
        self._error: ErrorEvent | None = None
        self._event_failure: Exception | None = None
        self._stop: Stop | None = None

    def run(self) -> None:
        """Runs the attempt to its end. Whatever happens, no trainer and no thread of it is left."""
        self._heartbeat.start()
        self._log.start()
        self._log.say("attempt_started", worker=self._settings.worker_name)
        try:
            self._attempt()
        except LeaseLost as error:
            self._log.say("lease_lost", error=error)
            self._folder.remove()
        finally:
            self._log.close()
            self._heartbeat.stop()

    def _attempt(self) -> None:
        try:
            self._folder.prepare(waiting(self._spec, self._must_stop))
            step = self._restore()
            secret_values = waiting(self._secrets, self._must_stop)
            with ModelCache.of(self._settings).used(hub_repo(self._claim.spec["base_model"])):
                exit_ = self._train(secret_values, resume=step is not None)
        except Interrupted:
            self._give_back(_PREEMPTED)
            return
        except ValidationError as error:
            self._give_back(Reason("invalid_spec", f"this worker cannot read the job's spec: {error}", False))
            return
        except SecretMissing as error:
            self._give_back(Reason("secret_missing", str(error), retryable=False, actor="user"))
            return
        except NotFound as error:
            self._give_back(Reason("invalid_dataset", str(error), retryable=False, actor="user"))
            return
        except (SealedUnreadable, SealingNotConfigured) as error:
            self._give_back(Reason("secret_unreadable", str(error), retryable=False))
            return
        except OSError as error:  # A full or read-only disk, no more processes: another worker may do better.
            self._give_back(Reason("worker_failed", f"the trainer cannot be started: {error}", retryable=True))
            return
        self._drain()
        self._settle(exit_, self._reason(exit_))

    def _spec(self) -> Document:
        """Returns the spec with the prompts of the datasets that it names."""
        with transaction(self._sessions) as session:
            return datasets.filled_in(session, self._claim.project_id, self._claim.spec)

    def _give_back(self, reason: Reason) -> None:
        """Ends an attempt in which no trainer ran."""
        self._drain()
        self._settle(None, reason)

    def _secrets(self) -> dict[str, str]:
        """Returns the values that the trainer gets, by variable of its environment; the log hides them from now on."""
        wanted = self._claim.spec.get("secrets", {})
        with transaction(self._sessions) as session:
            values = secrets.values_for(session, Sealer.of(self._settings), self._claim.project_id, wanted)
        self._log.hide(values.values())
        return values

    def _restore(self) -> int | None:
        return restore(self._sessions, self._store, self._claim, self._fence, self._folder.path, self._must_stop)

    # --- during: the trainer ------------------------------------------------------------------------------------------

    def _train(self, secret_values: Mapping[str, str], *, resume: bool) -> TrainerExit:
        folder = self._folder
        num_gpus = self._claim.num_gpus
        command = command_for(self._settings.trainer_command, num_gpus)
        command += [str(folder.spec_path), "--output", str(folder.path), *["--resume"] * resume]
        trainer = Trainer(
            command,
            folder.path,
            self._on_event,
            secret_values,
            environment=environment_for(num_gpus, self._settings.stop_grace_seconds),
            is_launcher=num_gpus > 1,
        )
        self._oom_kills_before = outcome.count_oom_kills()
        trainer.start()
        self._log.follow(trainer.log_path)
        self._row_lane.start()
        self._file_lane.start()
        self._stall.sign_of_life()
        self._log.say("trainer_started", pid=trainer.pid, resume=resume)
        try:
            self._watch(trainer)
        except BaseException:
            trainer.kill()
            raise
        finally:
            exit_ = trainer.finish()
            self._log.unfollow()
        exit_ = of_first_rank(exit_) if num_gpus > 1 else exit_
        exit_ = replace(exit_, stderr_tail=self._log.redact(exit_.stderr_tail))
        self._log.say("trainer_ended", how=exit_, stop=self._stop)
        return exit_

    def _on_event(self, event: TrainerEvent) -> None:
        """Notes one event. Runs in the reader thread, which must go on reading whatever happens here."""
        try:
            event = self._log.redact.event(event)
            if isinstance(event, LogEvent | ErrorEvent):
                self._log.tell(event)
            self._sort(event)
        except Exception as error:
            log.exception("event=event_not_taken type=%s", event.type)
            self._event_failure = error

    def _sort(self, event: TrainerEvent) -> None:
        """Puts one event into its lane; never blocks."""
        if isinstance(event, ProgressEvent):
            self._stall.step()
        elif not isinstance(event, LogEvent):
            self._stall.sign_of_life()
        if isinstance(event, ErrorEvent):
            self._error = event
        if isinstance(event, SampleEvent | CheckpointEvent | ArtifactEvent):
            self._file_lane.put(self._files.spool(event))
        else:
            self._row_lane.put(event)

    def _watch(self, trainer: Trainer) -> None:
        """Returns when the trainer has ended, having ended it if it had to be."""
        kill_at: float | None = None
        while not trainer.exited():
            if self._heartbeat.lost:
                self._stop = Stop.LEASE_LOST
                trainer.kill()
            elif kill_at is not None and time.monotonic() > kill_at:
                trainer.kill()
            elif kill_at is None and (stop := self._why_stop()) is not None:
                self._stop = stop
                self._log.say("trainer_stopped", why=stop.value)
                trainer.dump_and_abort() if stop is Stop.STALLED else trainer.terminate()
                kill_at = time.monotonic() + self._settings.stop_grace_seconds
            trainer.wait(_WATCH_S)

    def _why_stop(self) -> Stop | None:
        if self._heartbeat.desired_state != Desired.RUN:
            return Stop.ASKED
        if self._draining.is_set():
            return Stop.DRAINING
        if self._failure() is not None:
            return Stop.PUBLISHING
        return Stop.STALLED if self._stall.stalled else None

    def _failure(self) -> Exception | None:
        """Returns the fault, of a disk or of this program, that keeps events from being published."""
        return self._event_failure or self._row_lane.failure or self._file_lane.failure

    def _must_stop(self) -> bool:
        return self._heartbeat.lost or self._draining.is_set() or self._heartbeat.desired_state != Desired.RUN

    def _renew(self) -> str:
        with transaction(self._sessions) as session:
            return leases.renew(session, self._claim.job_id, self._claim.epoch, self._settings.lease)

    # --- after: what becomes of the job -------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Returns when all that the trainer left is published, or the lease is lost, or there is no time for it."""
        lanes = (self._row_lane, self._file_lane, self._log)
        for lane in lanes:
            lane.close()
        deadline: float | None = None
        while not (self._heartbeat.lost or all(lane.done for lane in lanes)):
            if deadline is None and self._must_stop():
                deadline = time.monotonic() + self._settings.stop_grace_seconds
            if deadline is not None and time.monotonic() > deadline:
                self._log.say("publishing_given_up", why="the store or the database did not come back in time")
                return
            time.sleep(_DRAIN_S)

    def _reason(self, exit_: TrainerExit) -> Reason | None:
        """Returns why the job did not succeed, or None if it did."""
        if (failure := self._failure()) is not None:
            return Reason("worker_failed", f"the results could not be published: {failure!r}", retryable=True)
        if exit_.code == outcome.EXIT_DONE and self._files.adapter_committed:
            return None
        if self._stop is Stop.STALLED:
            message = f"no step for {self._stall.limit_s:.0f} s; the stacks of its threads are in the job's log"
            return Reason("stalled", message, retryable=True)
        if self._stop is Stop.DRAINING or (exit_.code == outcome.EXIT_DONE and self._draining.is_set()):
            return _PREEMPTED
        reason = outcome.reason_for(exit_, self._error, outcome.count_oom_kills() - self._oom_kills_before)
        if reason.code == "internal" and (free := free_bytes(self._settings.work_dir)) < self._settings.min_free_bytes:
            message = f"the worker's disk is full ({free} bytes are free); {reason.message}"
            return Reason("worker_failed", message, retryable=True)
        return reason

    def _settle(self, exit_: TrainerExit | None, reason: Reason | None) -> None:
        """Gives the job its new status, as soon as the database takes it."""
        while not self._heartbeat.lost:
            try:
                with transaction(self._sessions) as session:
                    job = self._fence.pass_through(session)
                    status = self._conclude(session, job, exit_, reason)
            except DatabaseUnavailable as error:
                log.warning("event=settling_retried job_id=%s error=%s", self._claim.job_id, error)
                time.sleep(_SETTLE_RETRY_S)
            else:
                self._log.say("attempt_ended", status=status, reason=reason.code if reason else None)
                self._folder.keep_for_inspection() if status is Status.FAILED else self._folder.remove()
                return
        raise LeaseLost("the lease ran out before the attempt could be settled")

    def _conclude(self, session: Session, job: Job, exit_: TrainerExit | None, reason: Reason | None) -> Status:
        """Ends the attempt of the locked job and returns what the job becomes."""
        self._log.conclude(session, reason)
        exit_code = None if exit_ is None else exit_.code if exit_.signal is None else -exit_.signal
        if reason is None:
            leases.end(session, job, Status.SUCCEEDED, None, phase="done", exit_code=exit_code)
            return Status.SUCCEEDED
        row: StatusReason = {**asdict(reason)}  # type: ignore[typeddict-item]
        words = "" if exit_ is None or reason is _PREEMPTED else exit_.stderr_tail[-_LAST_WORDS_CHARS:]
        if job.status == Status.RUNNING and words:
            message = f"{reason.code}: the end of the trainer's output:\n{words}"
            events.append(session, job.id, "log", {"level": "error", "message": message})
        return leases.end_by_reason(session, job, row, self._settings.retry, exit_code=exit_code)
