"""What the endpoints of projects do: one transaction each, the caller's.

A caller sees its own project. An administrator sees all of them; that it is one was checked with the route's scope
where something is changed, and is looked at here where something is read.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api import idempotency
from api.idempotency import Answer
from api.pagination import List, ListQuery
from api.projects.schemas import NewProject, ProjectBody, ProjectChanges, ProjectSummary, body_of, summary_of
from jobs import audit, projects, quotas
from jobs.api_keys import Caller
from jobs.errors import NotFound
from jobs.scopes import ADMIN, covers
from jobs.spec import checked
from jobs.tables import Document, Project


def create(session: Session, caller: Caller, key: str | None, document: Any) -> Answer:
    """Makes a project, or returns the answer to the same request before.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    new = checked(NewProject, document)

    def effect() -> Document:
        return _body(session, projects.create(session, new.name, new.limits.model_dump())).model_dump(mode="json")

    return idempotency.once(session, caller.project_id, key, ["POST /v1/projects", document], 201, effect)


def show(session: Session, caller: Caller, project_id: str) -> ProjectBody:
    """Returns one project.

    Raises:
        NotFound: there is none, or the caller may not see it.
    """
    if project_id != caller.project_id and not covers(caller.scopes, ADMIN):
        raise NotFound(f"there is no project {project_id!r}")
    return _body(session, projects.get(session, project_id))


def page(session: Session, caller: Caller, query: ListQuery) -> List[ProjectSummary]:
    """Returns a page of the projects that the caller may see, newest first."""
    only = None if covers(caller.scopes, ADMIN) else caller.project_id
    found = projects.page(session, only, limit=query.limit, cursor=query.cursor)
    data = [summary_of(project) for project in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)


def change(session: Session, project_id: str, document: Any, *, version: int | None) -> ProjectBody:
    """Changes name or limits of a project.

    Raises:
        InvalidRequest: with everything that is wrong with the document.
    """
    changes = checked(ProjectChanges, document).columns()
    audit.about(session, project_id=projects.get(session, project_id).id)
    return _body(session, projects.change(session, project_id, changes, version=version))


def _body(session: Session, project: Project) -> ProjectBody:
    return body_of(project, quotas.use_of(session, project.id))
