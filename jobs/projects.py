"""Projects: made, shown, listed, renamed and limited by administrators. What a project uses is in `jobs.quotas`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobs import audit
from jobs.errors import FieldError, InvalidRequest, NotFound, VersionMismatch
from jobs.ids import is_id, new_id
from jobs.pages import Page, cut, decode_cursor
from jobs.tables import Project


def create(session: Session, name: str, limits: Mapping[str, Any]) -> Project:
    """Makes a project and returns it.

    Raises:
        InvalidRequest: there is one of that name.
    """
    statement = insert(Project).values(id=new_id("prj"), name=name, **limits).on_conflict_do_nothing()
    project_id = session.scalar(statement.returning(Project.id))
    if project_id is None:
        raise _name_taken(name)
    project = get(session, project_id)
    audit.made(session, project)
    return project


def get(session: Session, project_id: str, *, lock: bool = False) -> Project:
    """Returns a project.

    Raises:
        NotFound: there is none with that id.
    """
    statement = select(Project).where(Project.id == project_id)
    project = session.scalar(statement.with_for_update() if lock else statement) if is_id(project_id, "prj") else None
    if project is None:
        raise NotFound(f"there is no project {project_id!r}")
    return project


def page(session: Session, only: str | None, *, limit: int, cursor: str | None = None) -> Page[Project]:
    """Returns the projects of the service, newest first, or the only one that the caller may see.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    statement = select(Project).order_by(Project.id.desc()).limit(limit + 1)
    if only is not None:
        statement = statement.where(Project.id == only)
    if cursor is not None:
        statement = statement.where(Project.id < decode_cursor(cursor))
    return cut(list(session.scalars(statement)), limit, lambda project: project.id)


def change(session: Session, project_id: str, changes: Mapping[str, Any], *, version: int | None) -> Project:
    """Renames a project or changes its limits, and returns it.

    Args:
        session: An open transaction.
        project_id: The project.
        changes: Columns and their new values.
        version: The one that the caller has seen; None takes any.

    Raises:
        NotFound: there is no such project.
        VersionMismatch: it has another version by now.
        InvalidRequest: there is another one of that name.
    """
    project = get(session, project_id, lock=True)
    if version not in (None, project.version):
        raise VersionMismatch(f"the project is at version {project.version}, not {version}", version=project.version)
    different = {name: value for name, value in changes.items() if getattr(project, name) != value}
    if different:
        for name, value in different.items():
            setattr(project, name, value)
        project.version += 1
        try:
            session.flush()
        except IntegrityError:
            raise _name_taken(changes["name"]) from None
    return project


def _name_taken(name: str) -> InvalidRequest:
    return InvalidRequest([FieldError("name_taken", f"there is a project {name!r} already", pointer="/name")])
