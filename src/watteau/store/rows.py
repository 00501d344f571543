"""Rows into records and back: the one place that knows how a value is spelt in the tables."""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from watteau.domain.decisions import Reason
from watteau.domain.records import AttemptRecord, Event, EventKind, JobRecord, Place
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome, Request
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.store.tables import attempts, events, jobs, requests

#: Ids outside are nobody's; the databases' whole numbers end there.
MOST_ID = 2**63 - 1

_JOB = (
    jobs.c.job_id,
    jobs.c.array_id,
    jobs.c.array_index,
    jobs.c.tenant,
    jobs.c.user_name,
    jobs.c.request_id,
    jobs.c.state,
    jobs.c.reason,
    jobs.c.detail,
    jobs.c.submitted_ms,
    jobs.c.started_ms,
    jobs.c.ended_ms,
    jobs.c.site,
    jobs.c.attempts,
    jobs.c.exit_code,
    jobs.c.signal,
    jobs.c.cancel_requested,
)
JOB_WIDTH = len(_JOB)
ATTEMPT = (
    attempts.c.job_id,
    attempts.c.number,
    attempts.c.name,
    attempts.c.site,
    attempts.c.state,
    attempts.c.places,
    attempts.c.intended_ms,
    attempts.c.started_ms,
    attempts.c.ended_ms,
    attempts.c.outcome,
    attempts.c.exit_code,
    attempts.c.signal,
    attempts.c.cause,
)
EVENT = (events.c.seq, events.c.at_ms, events.c.job_id, events.c.attempt, events.c.kind, events.c.data)

_REQUEST_ID = 5  # where it stands in _JOB
_SMALL_BODY = 2_048  # characters
_MOST_KEPT = 16_384


#: Ids in one statement; SQLite takes 32,766 parameters, PostgreSQL 65,535.
_MOST_IDS = 10_000


def select_jobs() -> Select[Any]:
    """Jobs in the column order that `Bodies.jobs` reads."""
    return select(*_JOB)


class Bodies:
    """The requests of jobs, each read once: an array may have ten thousand jobs and one long request.

    Requests never change, so small ones are kept for the next read; long ones would fill the memory with scripts.
    Thread-safe: at worst two threads read the same request.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Request] = OrderedDict()
        self._lock = threading.Lock()

    def jobs(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[JobRecord]:
        """Jobs from rows that begin with the columns of `select_jobs`; what follows them is left alone."""
        bodies = self._of(connection, {row[_REQUEST_ID] for row in rows})
        return [_job_record(row, bodies[row[_REQUEST_ID]]) for row in rows]

    def _of(self, connection: Connection, request_ids: set[int]) -> dict[int, Request]:
        with self._lock:
            found = {request_id: self._kept[request_id] for request_id in request_ids & self._kept.keys()}
            for request_id in found:
                self._kept.move_to_end(request_id)
        small: dict[int, Request] = {}
        for ids in in_parts(sorted(request_ids - found.keys())):
            for request_id, body in connection.execute(_BODIES, {"ids": ids}):
                found[request_id] = request = Request.model_validate_json(body)
                if len(body) <= _SMALL_BODY:
                    small[request_id] = request
        if small:
            with self._lock:
                self._kept.update(small)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        return found


_BODIES = select(requests.c.request_id, requests.c.body).where(
    requests.c.request_id.in_(bindparam("ids", expanding=True))
)


def _job_record(row: Sequence[Any], request: Request) -> JobRecord:
    return JobRecord(
        job_id=JobId(row[0]),
        array_id=None if row[1] is None else JobId(row[1]),
        array_index=row[2],
        tenant=TenantId(row[3]),
        user=row[4],
        request=request,
        state=JobState(row[6]),
        reason=Reason(row[7]),
        detail=row[8],
        submitted_ms=row[9],
        started_ms=row[10],
        ended_ms=row[11],
        site=None if row[12] is None else SiteId(row[12]),
        attempts=row[13],
        exit_code=row[14],
        signal=row[15],
        cancel_requested=bool(row[16]),
    )


def attempt_record(row: Sequence[Any]) -> AttemptRecord:
    """An attempt from the columns of ATTEMPT."""
    return AttemptRecord(
        job_id=JobId(row[0]),
        number=row[1],
        name=row[2],
        site=SiteId(row[3]),
        state=AttemptState(row[4]),
        places=tuple(
            Place(PoolId(pool), node, tuple(gpus), shared_gpu) for pool, node, gpus, shared_gpu in json.loads(row[5])
        ),
        intended_ms=row[6],
        started_ms=row[7],
        ended_ms=row[8],
        outcome=None if row[9] is None else Outcome(row[9]),
        exit_code=row[10],
        signal=row[11],
        cause=row[12],
    )


def event_from(row: Sequence[Any]) -> Event:
    """An event from the columns of EVENT."""
    return Event(row[0], row[1], JobId(row[2]), row[3], EventKind(row[4]), json.loads(row[5]))


def places_text(places: Sequence[Place]) -> str:
    """Places as an attempt keeps them: a list for each worker, since a gang may have thousands."""
    return json_text([[place.pool, place.node, place.gpus, place.shared_gpu] for place in places])


def request_text(request: Request) -> str:
    """A request as it is kept. Defaults are left out, which makes them part of the format: a test pins them."""
    return request.model_dump_json(exclude_defaults=True)


def json_text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON in ASCII, so that it holds nothing which a database could refuse."""
    return json.dumps(value, separators=(",", ":"), default=str)


def plain(words: str) -> str:
    """Text from outside, without what PostgreSQL cannot keep: NUL and halves of surrogate pairs."""
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def is_plain(words: str) -> bool:
    """Whether a text can be in the database at all."""
    return plain(words) == words


def in_parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Ids in lots that one statement can take; ids that no row can have are left out."""
    possible = [one for one in ids if 0 < one <= MOST_ID]
    return (possible[start : start + _MOST_IDS] for start in range(0, len(possible), _MOST_IDS))


def possible(number: int) -> int:
    """An id or seq that the database can compare with: one that is too large or too small becomes the next to it."""
    return min(max(number, 0), MOST_ID)
