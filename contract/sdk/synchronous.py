"""The modules of `egrpo_client/sync/`, from those of `egrpo_client/aio/`: the same words without their waiting."""

from __future__ import annotations

import re

_WORDS = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync(Client|Job|Operations|Transport|Iterator|Generator|BaseTransport)\b", r"\1"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\ba(iter_bytes|iter_lines|read|close)\b", r"\1"),
    (r"\baclosing\b", "closing"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\begrpo_client\.aio\b", "egrpo_client.sync"),
)


def synchronous(text: str) -> str:
    """Returns the synchronous module of an asynchronous one, not yet formatted."""
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    return text
