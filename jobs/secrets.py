"""Secrets of a project: made, replaced, listed, deleted, and handed to the worker of a job that names them.

Every query is scoped to the project. A value goes in and comes out through `jobs.sealing`; the only way out is
`values_for`, which the API never calls.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, undefer

from jobs import audit
from jobs.errors import AlreadyExists, NotFound, SecretMissing
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.sealing import Sealer
from jobs.tables import Secret


def create(session: Session, sealer: Sealer, project_id: str, name: str, value: str) -> Secret:
    """Stores a secret and returns its row.

    Raises:
        AlreadyExists: the project has a secret of that name.
        SealingNotConfigured: there is no key to encrypt with.
    """
    secret_id = new_id("sec")
    sealed = sealer.seal(secret_id, value)
    statement = insert(Secret).values(id=secret_id, project_id=project_id, name=name, sealed=sealed)
    made = session.scalar(statement.on_conflict_do_nothing().returning(Secret.id))
    if made is None:
        taken = session.scalars(_of(project_id).where(Secret.name == name)).one()
        raise AlreadyExists(f"there is a secret {name!r} already: {taken.id}; replace it or take another name")
    secret = get(session, project_id, made)
    audit.made(session, secret)
    return secret


def get(session: Session, project_id: str, secret_id: str, *, lock: bool = False) -> Secret:
    """Returns the row of a secret of the project.

    Raises:
        NotFound: the project has no such secret.
    """
    statement = _of(project_id).where(Secret.id == secret_id)
    if lock:
        statement = statement.with_for_update()
    secret = session.scalar(statement) if is_id(secret_id, "sec") else None
    if secret is None:
        raise NotFound(f"there is no secret {secret_id!r}")
    return secret


def exists(session: Session, project_id: str, secret_id: str) -> bool:
    """Returns whether the project has that secret."""
    return session.scalar(select(_of(project_id).where(Secret.id == secret_id).exists())) is True


def page(session: Session, project_id: str, *, limit: int, cursor: str | None = None) -> Page[Secret]:
    """Returns secrets of the project, newest first.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = _of(project_id).order_by(Secret.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(Secret.id < decode_cursor(cursor))
    return cut(list(session.scalars(statement)), limit, lambda secret: secret.id)


def replace(session: Session, sealer: Sealer, project_id: str, secret_id: str, value: str) -> Secret:
    """Gives a secret another value, which attempts of jobs that start from now on get.

    Raises:
        NotFound: the project has no such secret.
        SealingNotConfigured: there is no key to encrypt with.
    """
    secret = get(session, project_id, secret_id, lock=True)
    secret.sealed = sealer.seal(secret.id, value)
    secret.replaced_at = func.clock_timestamp()
    session.flush()
    session.refresh(secret)
    return secret


def remove(session: Session, project_id: str, secret_id: str) -> None:
    """Deletes a secret at once, whoever uses it: that is how one that has leaked is taken back.

    Raises:
        NotFound: the project has no such secret.
    """
    session.delete(get(session, project_id, secret_id, lock=True))
    session.flush()


def values_for(session: Session, sealer: Sealer, project_id: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Returns the values for a trainer's environment, by variable.

    Args:
        session: An open transaction.
        sealer: Opens them.
        project_id: The job's.
        wanted: The ids, by variable.

    Raises:
        SecretMissing: a secret was deleted since the job was accepted.
        SealedUnreadable: no key opens it.
        SealingNotConfigured: there is no key.
    """
    if not wanted:
        return {}
    statement = _of(project_id).where(Secret.id.in_(wanted.values())).options(undefer(Secret.sealed))
    found = {secret.id: secret for secret in session.scalars(statement.with_for_update().order_by(Secret.id))}
    values: dict[str, str] = {}
    for variable, secret_id in wanted.items():
        if (secret := found.get(secret_id)) is None:
            raise SecretMissing(f"the secret {secret_id} for {variable} was deleted")
        secret.last_used_at = func.clock_timestamp()
        values[variable] = sealer.open(secret.id, secret.sealed)
    return values


def _of(project_id: str) -> Select[Secret]:
    return select(Secret).where(Secret.project_id == project_id)
