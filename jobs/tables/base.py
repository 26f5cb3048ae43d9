"""The base of all tables, and the columns that many of them have."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Boolean, DateTime, Double, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Document = dict[str, Any]


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        bool: Boolean,
        float: Double,
        datetime: DateTime(timezone=True),
        Document: JSONB,
        dict[str, str]: JSONB,
        dict[str, float]: JSONB,
        list[Document]: JSONB,
    }


def now_column(**options: Any) -> Mapped[datetime]:
    """Returns a column that holds the time of the insertion."""
    return mapped_column(server_default=func.now(), **options)


def id_column(prefix: str) -> Mapped[str]:
    """Returns the primary key of a table whose ids have that prefix."""
    # Ids sort as bytes, whatever the database's language.
    return mapped_column(Text(collation="C"), primary_key=True, comment=f"{prefix}_…")
