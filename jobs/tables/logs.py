"""The log of a job."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, now_column


class LogLine(Base):
    """One line, numbered 1, 2, 3, … through all attempts of the job; the oldest ones go when there are too many."""

    __tablename__ = "log_lines"
    __table_args__ = (CheckConstraint("source IN ('output', 'trainer', 'supervisor')", name="source"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    source: Mapped[str]
    level: Mapped[str]
    message: Mapped[str]
    created_at: Mapped[datetime] = now_column()
