"""Whom to tell what happens to jobs, and what was told them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Document, id_column, now_column


class WebhookEndpoint(Base):
    """A URL that wants to be told. The `sealed` secrets are made and read by `jobs.sealing` alone.

    After a rotation `sealed_previous` signs as well until `previous_until`. `failing_since` is the first failure after
    the last success. Before `held_until`, which its own Retry-After set, it is sent nothing.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("ix_webhook_endpoints_project_id_id", "project_id", "id"),)

    id: Mapped[str] = id_column("whe")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    url: Mapped[str]
    description: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text), comment="* for all")
    sealed: Mapped[str] = mapped_column(deferred=True)
    sealed_previous: Mapped[str | None] = mapped_column(deferred=True)
    previous_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    held_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    created_at: Mapped[datetime] = now_column()


class WebhookDelivery(Base):
    """One message to one endpoint: written in the transaction of what it tells, sent later (an outbox).

    The id is the message's `webhook-id`, the same however often it is sent. A sender takes it by moving
    `next_attempt_at` and counting an attempt, and notes the outcome only if nobody took it since.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_webhook_deliveries_old", "created_at", postgresql_where=text("status <> 'pending'")),
    )

    id: Mapped[str] = id_column("msg")
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    type: Mapped[str]
    data: Mapped[Document]
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=text("now()"))
    last_attempt_at: Mapped[datetime | None]
    response_status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = now_column()
