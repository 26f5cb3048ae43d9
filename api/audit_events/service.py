"""Reading the audit log. `api.dependencies` writes it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.administration import project_meant
from api.audit_events.schemas import AuditEventBody, AuditEventsQuery, body_of
from api.pagination import List
from jobs import audit
from jobs.api_keys import Caller
from jobs.audit import Wanted


def page(session: Session, caller: Caller, query: AuditEventsQuery) -> List[AuditEventBody]:
    """Returns a page of events, newest first."""
    project_id = project_meant(session, caller, query.project_id)
    wanted = Wanted(query.action, query.key_id, query.target_id, query.created_after, query.created_before)
    found = audit.page(session, project_id, wanted, limit=query.limit, cursor=query.cursor)
    data = [body_of(row) for row in found.items]
    return List(data=data, has_more=found.next_cursor is not None, next_cursor=found.next_cursor)
