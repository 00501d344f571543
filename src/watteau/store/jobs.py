"""Jobs as their owners see them: keeping new ones, writing down what is asked of them, reading them."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, text, update

from watteau.domain.decisions import Reason
from watteau.domain.people import User
from watteau.domain.records import AttemptRecord, EventKind, JobRecord
from watteau.domain.requests import JobId, JobState, Request
from watteau.domain.units import TenantId
from watteau.store import log
from watteau.store.answers import IdempotencyKey, LiveJob
from watteau.store.errors import Conflict, NotFound
from watteau.store.rows import (
    ATTEMPT,
    JOB_WIDTH,
    Bodies,
    attempt_record,
    in_parts,
    plain,
    possible,
    request_text,
    select_jobs,
)
from watteau.store.tables import LIVE, NOT_ENDED, attempts, idempotency, jobs, requests

_BY_IDS = select_jobs().where(jobs.c.job_id.in_(bindparam("ids", expanding=True))).order_by(jobs.c.job_id)

#: The audit log's words for what can be asked.
_ASKED = {EventKind.HELD: "hold", EventKind.RELEASED: "release", EventKind.CANCEL_REQUESTED: "cancel"}


def submit(
    connection: Connection,
    bodies: Bodies,
    wanted: Sequence[tuple[Request, TenantId]],
    user: User,
    now_ms: int,
    key: IdempotencyKey | None,
) -> list[JobRecord]:
    """Keep new jobs. See Store.submit."""
    if key is not None:
        log.lock(connection)
        if (before := _answered_before(connection, bodies, key)) is not None:
            return before
    _refuse_unknown_dependencies(connection, wanted)
    total = sum(1 if request.array is None else len(request.array.indices) for request, _ in wanted)
    last = log.take(connection, seqs=total, jobs=total, requests=len(wanted))
    first_job_id, first_request_id = last.last_job_id - total + 1, last.last_request_id - len(wanted) + 1
    if key is not None:
        connection.execute(
            insert(idempotency),
            {
                "user_id": key.user_id,
                "key": plain(key.key),
                "digest": key.digest,
                "at_ms": now_ms,
                "first_job_id": first_job_id,
                "jobs": total,
            },
        )
    if not wanted:
        return []
    records = [
        _new_job(JobId(job_id), array_id, array_index, request, tenant, user.name, now_ms)
        for job_id, (array_id, array_index, request, tenant) in enumerate(_tasks(wanted, first_job_id), first_job_id)
    ]
    connection.execute(
        insert(requests),
        [
            {
                "request_id": request_id,
                "name_folded": request.name.casefold(),
                "gpu_milli": request.workers * request.gpu_milli,
                "cpu_milli": request.workers * request.cpu_milli,
                "body": request_text(request),
            }
            for request_id, (request, _) in enumerate(wanted, first_request_id)
        ],
    )
    connection.execute(insert(jobs), list(_rows(records, wanted, first_request_id)))
    log.write(connection, [_submitted(record) for record in records], now_ms, last.last_seq - total + 1)
    return records


def _tasks(
    wanted: Sequence[tuple[Request, TenantId]], first_job_id: int
) -> Iterator[tuple[JobId | None, int | None, Request, TenantId]]:
    """(array id, array index, request, tenant) for each job to be, in the order of their ids."""
    job_id = first_job_id
    for request, tenant in wanted:
        if request.array is None:
            yield None, None, request, tenant
            job_id += 1
            continue
        for index in request.array.indices:
            yield JobId(job_id), index, request, tenant
        job_id += len(request.array.indices)


def _new_job(
    job_id: JobId,
    array_id: JobId | None,
    array_index: int | None,
    request: Request,
    tenant: TenantId,
    user: str,
    submitted_ms: int,
) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        array_id=array_id,
        array_index=array_index,
        tenant=tenant,
        user=user,
        request=request,
        state=JobState.HELD if request.held else JobState.WAITING,
        reason=Reason.STOPPED if request.held else Reason.NONE,
        detail="",
        submitted_ms=submitted_ms,
        started_ms=None,
        ended_ms=None,
        site=None,
        attempts=0,
        exit_code=None,
        signal=None,
        cancel_requested=False,
    )


def _rows(
    records: Sequence[JobRecord], wanted: Sequence[tuple[Request, TenantId]], first_request_id: int
) -> Iterator[dict[str, object]]:
    task = iter(records)
    for request_id, (request, _) in enumerate(wanted, first_request_id):
        for _index in range(1 if request.array is None else len(request.array.indices)):
            record = next(task)
            yield {
                "job_id": record.job_id,
                "request_id": request_id,
                "array_id": record.array_id,
                "array_index": record.array_index,
                "tenant": record.tenant,
                "user_name": record.user,
                "state": record.state,
                "reason": record.reason,
                "detail": "",
                "submitted_ms": record.submitted_ms,
                "attempts": 0,
                "cancel_requested": False,
            }


def _submitted(record: JobRecord) -> log.Line:
    data: dict[str, object] = {"user": record.user}
    if record.array_id is not None:
        data |= {"array_id": record.array_id, "array_index": record.array_index}
    if record.state is JobState.HELD:
        data["held"] = True
    return record.job_id, record.tenant, None, EventKind.SUBMITTED, data


def _answered_before(connection: Connection, bodies: Bodies, key: IdempotencyKey) -> list[JobRecord] | None:
    """The jobs as they were when this key was first used; None: it never was."""
    found = connection.execute(
        select(idempotency).where(idempotency.c.user_id == key.user_id, idempotency.c.key == plain(key.key))
    ).one_or_none()
    if found is None:
        return None
    if found.digest != key.digest:
        raise Conflict("this idempotency key was used for another request")
    last_job_id = found.first_job_id + found.jobs - 1
    mine = select_jobs().where(jobs.c.job_id.between(found.first_job_id, last_job_id)).order_by(jobs.c.job_id)
    return [
        _new_job(job.job_id, job.array_id, job.array_index, job.request, job.tenant, job.user, job.submitted_ms)
        for job in bodies.jobs(connection, connection.execute(mine).all())
    ]


def _refuse_unknown_dependencies(connection: Connection, wanted: Sequence[tuple[Request, TenantId]]) -> None:
    named = {dependency.job_id for request, _ in wanted for dependency in request.dependencies}
    if not named:
        return
    known = select(jobs.c.job_id).where(jobs.c.job_id.in_(bindparam("ids", expanding=True)))
    for ids in in_parts(sorted(named)):
        named.difference_update(connection.execute(known, {"ids": ids}).scalars())
    if named:
        some = ", ".join(str(job_id) for job_id in sorted(named)[:10])
        raise NotFound(f"a dependency names jobs that are not there: {some}{', ...' if len(named) > 10 else ''}")


def ask(
    connection: Connection, bodies: Bodies, job_ids: Sequence[JobId], kind: EventKind, user: User, now_ms: int
) -> list[JobRecord]:
    """Write down what is asked of jobs. See Store.ask."""
    log.lock(connection)
    before = by_ids(connection, bodies, job_ids)
    if missing := sorted(set(job_ids) - before.keys()):
        raise NotFound(f"there are no jobs {', '.join(map(str, missing[:10]))}{', ...' if len(missing) > 10 else ''}")
    changed = [job for job in before.values() if _changes_something(job, kind)]
    if not changed:
        return [before[job_id] for job_id in job_ids]
    statement = update(jobs).where(jobs.c.job_id == bindparam("id"))
    if kind is EventKind.CANCEL_REQUESTED:
        connection.execute(statement.values(cancel_requested=True), [{"id": job.job_id} for job in changed])
    else:
        state, reason = (JobState.HELD, Reason.STOPPED) if kind is EventKind.HELD else (JobState.WAITING, Reason.NONE)
        if waiting := [{"id": job.job_id} for job in changed if job.state is not JobState.RUNNING]:
            connection.execute(statement.values(state=state, reason=reason, detail=""), waiting)
    log.append(connection, [(job.job_id, job.tenant, None, kind, {"user": user.name}) for job in changed], now_ms)
    ids = [job.job_id for job in changed]
    named = f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs from {ids[0]}"
    log.note(connection, user.name, _ASKED[kind], named, now_ms, {"job_ids": ids})
    after = by_ids(connection, bodies, job_ids)
    return [after[job_id] for job_id in job_ids]


def _changes_something(job: JobRecord, kind: EventKind) -> bool:
    """Whether asking for this says anything new."""
    if job.state.is_end:
        return False
    if kind is EventKind.CANCEL_REQUESTED:
        return not job.cancel_requested
    # A running job goes on; the controller may want to know when it is requeued.
    return job.state is not (JobState.HELD if kind is EventKind.HELD else JobState.WAITING)


def one(connection: Connection, bodies: Bodies, job_id: JobId) -> JobRecord:
    """One job. Raises NotFound."""
    found = by_ids(connection, bodies, [job_id])
    if not found:
        raise NotFound(f"there is no job {job_id}")
    return found[job_id]


def by_ids(connection: Connection, bodies: Bodies, job_ids: Sequence[JobId]) -> dict[JobId, JobRecord]:
    """Those of these jobs that exist, in the order of their ids."""
    return {
        job.job_id: job
        for ids in in_parts(sorted(set(job_ids)))
        for job in bodies.jobs(connection, connection.execute(_BY_IDS, {"ids": ids}).all())
    }


def attempts_of(connection: Connection, job_id: JobId) -> list[AttemptRecord]:
    """A job's attempts, oldest first."""
    wanted = select(*ATTEMPT).where(attempts.c.job_id == possible(job_id)).order_by(attempts.c.number)
    return [attempt_record(row) for row in connection.execute(wanted)]


_LIVE = (
    select_jobs()
    .outerjoin(attempts, (attempts.c.job_id == jobs.c.job_id) & text(f"attempts.{LIVE}"))
    .add_columns(*ATTEMPT)
    .order_by(jobs.c.job_id)
)
_ALL_LIVE = _LIVE.where(text(f"jobs.{NOT_ENDED}"))
_LIVE_BY_IDS = _LIVE.where(jobs.c.job_id.in_(bindparam("ids", expanding=True)))


def live(connection: Connection, bodies: Bodies) -> Iterator[LiveJob]:
    """Every job that has not ended, by id, read bit by bit."""
    for rows in connection.execute(_ALL_LIVE, execution_options={"yield_per": 1_000}).partitions():
        yield from _live_jobs(connection, bodies, rows)


def live_by_ids(connection: Connection, bodies: Bodies, job_ids: Sequence[JobId]) -> list[LiveJob]:
    """The same of some jobs, ended or not, by id."""
    return [
        job
        for ids in in_parts(sorted(set(job_ids)))
        for job in _live_jobs(connection, bodies, connection.execute(_LIVE_BY_IDS, {"ids": ids}).all())
    ]


def _live_jobs(connection: Connection, bodies: Bodies, rows: Sequence[Sequence[Any]]) -> Iterator[LiveJob]:
    for row, job in zip(rows, bodies.jobs(connection, rows), strict=True):
        yield LiveJob(job, None if row[JOB_WIDTH] is None else attempt_record(row[JOB_WIDTH:]))


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Jobs by state and reason; ended ones were counted as they ended."""
    found: dict[tuple[str, str], int] = {
        (state, Reason(reason).name): number
        for state, reason, number in connection.execute(
            text(f"SELECT state, reason, count(*) FROM jobs WHERE {NOT_ENDED} GROUP BY state, reason")
        )
    }
    ended = connection.execute(text("SELECT state, jobs FROM ended_jobs WHERE jobs > 0"))
    return found | {(state, ""): number for state, number in ended}
