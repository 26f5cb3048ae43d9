"""Objects of the store that no row names: found once, removed when they still are after a while."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, now_column


class Garbage(Base):
    """The mark of an object without a row. No foreign keys: its job may be gone, too."""

    __tablename__ = "garbage"

    # Of an upload in parts that was cut off: KEY?uploadId=ID.
    object_key: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    found_at: Mapped[datetime] = now_column()
    seen_at: Mapped[datetime] = now_column(comment="when it was last found without a row")
