"""Sends the messages of the outbox: a task of the maintenance process that goes on until the process ends.

One thread takes messages and starts a thread for each, at most one at a time for an endpoint; that one sends it and
notes the outcome. Between the two transactions nothing is held. The threads are daemons: a process that is told to end
does not wait for a receiver, and the message is sent again, with the same id, by the next.
"""

import json
import logging
import random
import threading
from datetime import UTC, datetime, timedelta

from jobs import deliveries, signatures
from jobs.db import SessionFactory, transaction
from jobs.deliveries import Message, Outcome, Patience
from jobs.errors import SealedUnreadable, SealingNotConfigured, ServiceError
from jobs.outbound import Outbound, OutboundFailed, OutboundRefused
from jobs.sealing import Sealer
from jobs.settings import Settings

log = logging.getLogger(__name__)

_AT_ONCE = 16
_JITTER = 0.1  # So that what failed together does not come back together.
_ERROR_CHARS = 300


class Sender:
    """The messages that are on their way from this process."""

    def __init__(self, sessions: SessionFactory, settings: Settings, outbound: Outbound) -> None:
        """Prepares the sender; nothing is sent before `send_due`.

        Args:
            sessions: Makes database sessions.
            settings: Keys, pauses and patience.
            outbound: Sends one request, past the guard.
        """
        self._sessions = sessions
        self._sealer = Sealer.of(settings)
        self._outbound = outbound
        self._patience = Patience(
            pauses=[timedelta(seconds=seconds) for seconds in settings.webhook_retry_seconds],
            disable_after=timedelta(days=settings.webhook_disable_after_days),
        )
        self._busy: set[str] = set()
        self._changed = threading.Condition()

    def send_due(self) -> int:
        """Starts sending what is due, and returns how many messages that are.

        Raises:
            DatabaseUnavailable: The database cannot be asked.
        """
        with self._changed:
            busy = set(self._busy)
        if len(busy) >= _AT_ONCE:
            return 0
        with transaction(self._sessions) as session:
            taken = deliveries.take(session, limit=_AT_ONCE - len(busy), busy=busy)
        for message in taken:
            with self._changed:
                self._busy.add(message.endpoint_id)
            threading.Thread(target=self._send, args=(message,), name=message.id, daemon=True).start()
        return len(taken)

    def wait(self, timeout_s: float) -> None:
        """Returns when a message has come to its end, or after the time."""
        with self._changed:
            self._changed.wait(timeout_s)

    def _send(self, message: Message) -> None:
        try:
            outcome = self._outcome(message)
            with transaction(self._sessions) as session:
                disabled = deliveries.note(session, message, outcome, self._jittered())
            shown = "delivered" if outcome.is_delivered else outcome.error or outcome.status
            log.info("event=webhook_sent message=%s attempt=%d outcome=%s", message.id, message.attempt, shown)
            if disabled is not None:
                log.warning("event=webhook_endpoint_disabled endpoint=%s reason=%s", message.endpoint_id, disabled)
        except ServiceError as error:  # It is due again when the time for which it was taken is over.
            log.warning("event=webhook_not_noted message=%s error=%s", message.id, error)
        except Exception:  # A thread of its own: nobody else would hear of it.
            log.exception("event=webhook_crashed message=%s", message.id)
        finally:
            with self._changed:
                self._busy.discard(message.endpoint_id)
                self._changed.notify_all()

    def _outcome(self, message: Message) -> Outcome:
        body = body_of(message)
        try:
            secrets = message.secrets(self._sealer)
            signed = signatures.headers(secrets, message.id, int(message.sent_at.timestamp()), body)
            answer = self._outbound.post(message.url, body, {"Content-Type": "application/json", **signed})
        except (OutboundRefused, OutboundFailed, SealingNotConfigured, SealedUnreadable) as error:
            return Outcome(None, str(error)[:_ERROR_CHARS])
        return Outcome(answer.status, None, answer.retry_after_s)

    def _jittered(self) -> Patience:
        factor = random.uniform(1 - _JITTER, 1 + _JITTER)
        return Patience([pause * factor for pause in self._patience.pauses], self._patience.disable_after)


def body_of(message: Message) -> bytes:
    """Returns what is sent: the same bytes each time."""
    timestamp = _rfc3339(message.created_at)
    return json.dumps({"type": message.type, "timestamp": timestamp, "data": message.data}).encode()


def send_until(stopping: threading.Event, sessions: SessionFactory, settings: Settings) -> None:
    """Sends messages as they become due, until the process is to end.

    Raises:
        DatabaseUnavailable: The database cannot be asked.
    """
    outbound = Outbound(settings.outbound_pairs(), deadline_s=settings.webhook_deadline_seconds)
    sender = Sender(sessions, settings, outbound)
    while not stopping.is_set():
        if sender.send_due() == 0:
            sender.wait(settings.webhook_poll_seconds)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
