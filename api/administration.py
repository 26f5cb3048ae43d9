"""What administrators may do beyond their own project: say in the query which one they mean."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from jobs import audit, projects
from jobs.api_keys import Caller
from jobs.scopes import ADMIN, require


class ProjectQuery(BaseModel):
    """Whose things."""

    model_config = ConfigDict(extra="forbid")

    project_id: str | None = Field(
        default=None, max_length=100, description="another project than the caller's: needs the scope `admin`"
    )


def project_meant(session: Session, caller: Caller, wanted: str | None) -> str:
    """Returns the project that a request is about.

    Raises:
        InsufficientScope: it is another one than the caller's, who is no administrator.
        NotFound: there is no such project.
    """
    if wanted is None or wanted == caller.project_id:
        return caller.project_id
    require(caller.scopes, ADMIN)
    project_id = projects.get(session, wanted).id
    audit.about(session, project_id=project_id)
    return project_id
