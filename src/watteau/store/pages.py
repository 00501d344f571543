"""Pages of jobs, newest first: found by an index whatever the filter, and complete while jobs are added."""

import base64
import binascii

from sqlalchemy import Connection

from watteau.store.answers import JobFilter, Page
from watteau.store.rows import MOST_ID, Bodies, select_jobs
from watteau.store.tables import jobs, requests


def page(connection: Connection, bodies: Bodies, only: JobFilter, limit: int, cursor: str | None) -> Page:
    """A page of jobs. See Store.jobs."""
    before = _before(cursor)
    wanted = select_jobs().join(requests).order_by(jobs.c.job_id.desc()).limit(limit + 1)
    if before is not None:
        wanted = wanted.where(jobs.c.job_id < before)
    if only.tenants is not None:
        wanted = wanted.where(jobs.c.tenant.in_(sorted(only.tenants)))
    if only.states:
        wanted = wanted.where(jobs.c.state.in_(sorted(only.states)))
    if only.user:
        wanted = wanted.where(jobs.c.user_name == only.user)
    if only.name_contains:
        wanted = wanted.where(requests.c.name_folded.contains(only.name_contains.casefold(), autoescape=True))
    if only.array_id is not None:
        wanted = wanted.where(jobs.c.array_id == only.array_id)
    if only.site:
        wanted = wanted.where(jobs.c.site == only.site)
    found = bodies.jobs(connection, connection.execute(wanted).all())
    more = len(found) > limit
    return Page(tuple(found[:limit]), _cursor(found[limit - 1].job_id) if more else None)


def _cursor(job_id: int) -> str:
    return base64.urlsafe_b64encode(f"before:{job_id}".encode()).decode().rstrip("=")


def _before(cursor: str | None) -> int | None:
    """The job id that a cursor stands for. Raises ValueError for one that is not ours."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        word, _, digits = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("the cursor is not one that a page gave") from error
    if word != "before" or not digits.isdecimal() or len(digits) > 19 or not 0 < int(digits) <= MOST_ID:
        raise ValueError("the cursor is not one that a page gave")
    return int(digits)
