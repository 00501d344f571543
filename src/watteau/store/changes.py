"""What a cycle decided and saw, applied to jobs and attempts: each change is checked against what is there.

R2 (intent first) rests on it: a job has one live attempt at most, and an ended one never lives again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from sqlalchemy import Connection, bindparam, insert, select, text, update

from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.records import (
    Answers,
    Change,
    Ends,
    EventKind,
    FallsSilent,
    Finishes,
    Intends,
    Place,
    Starts,
    Waits,
)
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome
from watteau.store.errors import Conflict
from watteau.store.log import Line, append
from watteau.store.rows import in_parts, places_text, plain
from watteau.store.tables import LIVE, attempts, jobs, requests

#: What a job becomes when its last attempt ends so.
_END_OF_JOB = {
    Outcome.COMPLETED: JobState.COMPLETED,
    Outcome.FAILED: JobState.FAILED,
    Outcome.TIMED_OUT: JobState.TIMED_OUT,
    Outcome.OUT_OF_MEMORY: JobState.OUT_OF_MEMORY,
    Outcome.CANCELLED: JobState.CANCELLED,
    Outcome.LOST: JobState.FAILED,
}


@dataclass(slots=True)
class _Job:
    job_id: int
    tenant: str
    user: str
    gpu_milli: int
    cpu_milli: int
    state: JobState
    reason: Reason
    detail: str
    started_ms: int | None
    ended_ms: int | None
    site: str | None
    attempts: int
    exit_code: int | None
    signal: int | None
    only_reason: bool = True  # nothing but reason and detail has changed


@dataclass(slots=True)
class _Attempt:
    job_id: int
    number: int
    state: AttemptState
    started_ms: int | None
    is_new: bool = False
    name: str = ""
    site: str = ""
    places: Sequence[Place] | None = None  # None: as they are in the table
    intended_ms: int = 0
    ended_ms: int | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""


def apply(connection: Connection, changes: Sequence[Change], now_ms: int) -> range:
    """Write the changes and their events; returns the seqs of these. The caller holds the log's lock.

    Raises InvariantBroken or Conflict; the caller's transaction then keeps nothing.
    """
    found = _jobs(connection, {change.job_id for change in changes})
    live = _live_attempts(connection, found)
    touched: dict[tuple[int, int], _Attempt] = {}
    lines: list[Line] = []
    for change in changes:
        job = found.get(change.job_id)
        if job is None:
            raise InvariantBroken(f"{_name(change)}: there is no job {change.job_id}")
        if not isinstance(change, Waits):
            job.only_reason = False
        for attempt, kind, data in _applied(change, job, live, now_ms):
            if attempt is not None:
                touched[attempt.job_id, attempt.number] = attempt
            lines.append((job.job_id, job.tenant, None if attempt is None else attempt.number, kind, data))
    _keep_jobs(connection, list(found.values()))
    _keep_attempts(connection, list(touched.values()), found)
    return append(connection, lines, now_ms)


def _applied(
    change: Change, job: _Job, live: dict[int, _Attempt], now_ms: int
) -> Iterator[tuple[_Attempt | None, EventKind, Mapping[str, Any]]]:
    """Change the job and its attempt, and give the events of it."""
    match change:
        case Waits():
            if job.state not in (JobState.WAITING, JobState.HELD):
                raise InvariantBroken(f"{_name(change)}: job {job.job_id} is {job.state}, not waiting")
            job.reason, job.detail = change.reason, plain(change.detail)
            yield None, EventKind.WAITING, {"reason": change.reason.name, "detail": change.detail}
        case Intends():
            attempt = _intended(change, job, live, now_ms)
            yield (
                attempt,
                EventKind.INTENDED,
                {
                    "name": change.name,
                    "site": change.site,
                    "places": [[place.pool, place.node, place.gpus, place.shared_gpu] for place in change.places],
                },
            )
        case Starts():
            attempt = _live(change, live, AttemptState.INTENDED, AttemptState.UNKNOWN)
            if attempt.started_ms is not None:
                raise InvariantBroken(f"{_name(change)}: attempt {change.number} of job {job.job_id} has started")
            attempt.state, attempt.started_ms = AttemptState.RUNNING, change.started_ms
            if change.places is not None:
                attempt.places = change.places
            job.started_ms = change.started_ms
            where = {"nodes": list(change.nodes)} if change.nodes else {}
            yield attempt, EventKind.STARTED, {"started_ms": change.started_ms, **where}
        case FallsSilent():
            attempt = _live(change, live, AttemptState.INTENDED, AttemptState.RUNNING)
            attempt.state = AttemptState.UNKNOWN
            yield attempt, EventKind.SILENT, {"cause": change.cause}
        case Answers():
            attempt = _live(change, live, AttemptState.UNKNOWN)
            attempt.state = AttemptState.INTENDED if attempt.started_ms is None else AttemptState.RUNNING
            yield attempt, EventKind.ANSWERED, {}
        case Ends():
            attempt = _ended(change, live)
            yield attempt, EventKind.ENDED, _end(change)
            if change.started_ms is not None:
                job.started_ms = change.started_ms
            if change.requeue:
                _requeue(job, plain(change.cause))
                yield attempt, EventKind.REQUEUED, {"cause": change.cause}
                return
            job.state, job.reason, job.detail = _END_OF_JOB[change.outcome], Reason.NONE, plain(change.cause)
            job.ended_ms, job.exit_code, job.signal = change.ended_ms, change.exit_code, change.signal
            yield attempt, EventKind.FINISHED, _finish(job)
        case Finishes():
            if job.state not in (JobState.WAITING, JobState.HELD) or not change.state.is_end:
                raise InvariantBroken(f"{_name(change)}: job {job.job_id} is {job.state}, to become {change.state}")
            job.state, job.reason, job.detail = change.state, change.reason, plain(change.detail)
            job.ended_ms = now_ms
            yield None, EventKind.FINISHED, _finish(job)
        case _:
            assert_never(change)


def _intended(change: Intends, job: _Job, live: dict[int, _Attempt], now_ms: int) -> _Attempt:
    if change.job_id in live:
        raise InvariantBroken(f"{_name(change)}: attempt {live[change.job_id].number} of job {job.job_id} is live")
    if job.state is JobState.HELD:
        # Not our mistake: it was held, and that was acknowledged, after the cycle had read the log.
        raise Conflict(f"job {job.job_id} is held: read the log and decide again")
    if job.state is not JobState.WAITING:
        raise InvariantBroken(f"{_name(change)}: job {job.job_id} is {job.state}, not waiting")
    if change.number != job.attempts + 1:
        raise InvariantBroken(f"{_name(change)}: job {job.job_id} has had {job.attempts} attempts, not {change.number}")
    job.state, job.reason, job.detail = JobState.RUNNING, Reason.NONE, ""
    job.site, job.attempts = change.site, change.number
    attempt = _Attempt(
        job_id=change.job_id,
        number=change.number,
        state=AttemptState.INTENDED,
        started_ms=None,
        is_new=True,
        name=change.name,
        site=change.site,
        places=change.places,
        intended_ms=now_ms,
    )
    live[change.job_id] = attempt
    return attempt


def _ended(change: Ends, live: dict[int, _Attempt]) -> _Attempt:
    attempt = _live(change, live, AttemptState.INTENDED, AttemptState.RUNNING, AttemptState.UNKNOWN)
    del live[change.job_id]
    attempt.state, attempt.outcome, attempt.cause = AttemptState.ENDED, change.outcome, plain(change.cause)
    attempt.started_ms = attempt.started_ms if change.started_ms is None else change.started_ms
    attempt.ended_ms = change.ended_ms
    attempt.exit_code, attempt.signal = change.exit_code, change.signal
    return attempt


def _requeue(job: _Job, cause: str) -> None:
    job.state, job.reason, job.detail = JobState.WAITING, Reason.NONE, cause
    job.site = None


def _live(change: Starts | FallsSilent | Answers | Ends, live: dict[int, _Attempt], *states: AttemptState) -> _Attempt:
    attempt = live.get(change.job_id)
    if attempt is None or attempt.number != change.number:
        raise InvariantBroken(f"{_name(change)}: attempt {change.number} of job {change.job_id} is not live")
    if attempt.state not in states:
        raise InvariantBroken(f"{_name(change)}: attempt {change.number} of job {change.job_id} is {attempt.state}")
    return attempt


def _end(change: Ends) -> Mapping[str, Any]:
    return {
        "outcome": change.outcome,
        "started_ms": change.started_ms,
        "ended_ms": change.ended_ms,
        "exit_code": change.exit_code,
        "signal": change.signal,
        "cause": change.cause,
        "used": dict(change.used),
    } | ({} if change.given else {"given": False})


def _finish(job: _Job) -> Mapping[str, Any]:
    return {
        "state": job.state,
        "reason": job.reason.name,
        "detail": job.detail,
        "exit_code": job.exit_code,
        "signal": job.signal,
    }


def _name(change: Change) -> str:
    return type(change).__name__


def _jobs(connection: Connection, job_ids: set[JobId]) -> dict[int, _Job]:
    wanted = (
        select(
            jobs.c.job_id,
            jobs.c.tenant,
            jobs.c.user_name,
            requests.c.gpu_milli,
            requests.c.cpu_milli,
            jobs.c.state,
            jobs.c.reason,
            jobs.c.detail,
            jobs.c.started_ms,
            jobs.c.ended_ms,
            jobs.c.site,
            jobs.c.attempts,
            jobs.c.exit_code,
            jobs.c.signal,
        )
        .join_from(jobs, requests)
        .where(jobs.c.job_id.in_(bindparam("ids", expanding=True)))
    )
    return {
        row[0]: _job(tuple(row))
        for ids in in_parts(sorted(job_ids))
        for row in connection.execute(wanted, {"ids": ids})
    }


def _job(row: tuple[Any, ...]) -> _Job:
    job_id, tenant, user, gpu_milli, cpu_milli, state, reason, *rest = row
    return _Job(job_id, tenant, user, gpu_milli, cpu_milli, JobState(state), Reason(reason), *rest)


def _live_attempts(connection: Connection, job_ids: Mapping[int, _Job]) -> dict[int, _Attempt]:
    wanted = select(attempts.c.job_id, attempts.c.number, attempts.c.state, attempts.c.started_ms).where(
        text(LIVE), attempts.c.job_id.in_(bindparam("ids", expanding=True))
    )
    with_attempts = sorted(job_id for job_id, job in job_ids.items() if job.state is JobState.RUNNING)
    return {
        row[0]: _Attempt(row[0], row[1], AttemptState(row[2]), row[3])
        for ids in in_parts(with_attempts)
        for row in connection.execute(wanted, {"ids": ids})
    }


_KEEP_REASON = (
    update(jobs)
    .where(jobs.c.job_id == bindparam("id"))
    .values(reason=bindparam("new_reason"), detail=bindparam("new_detail"))
)
_KEEP_JOB = (
    update(jobs)
    .where(jobs.c.job_id == bindparam("id"))
    .values(
        state=bindparam("new_state"),
        reason=bindparam("new_reason"),
        detail=bindparam("new_detail"),
        started_ms=bindparam("new_started_ms"),
        ended_ms=bindparam("new_ended_ms"),
        site=bindparam("new_site"),
        attempts=bindparam("new_attempts"),
        exit_code=bindparam("new_exit_code"),
        signal=bindparam("new_signal"),
    )
)
_KEEP_ATTEMPT = (
    update(attempts)
    .where(attempts.c.job_id == bindparam("id"), attempts.c.number == bindparam("of"))
    .values(
        state=bindparam("new_state"),
        started_ms=bindparam("new_started_ms"),
        ended_ms=bindparam("new_ended_ms"),
        outcome=bindparam("new_outcome"),
        exit_code=bindparam("new_exit_code"),
        signal=bindparam("new_signal"),
        cause=bindparam("new_cause"),
    )
)
_KEEP_PLACES = (
    update(attempts)
    .where(attempts.c.job_id == bindparam("id"), attempts.c.number == bindparam("of"))
    .values(places=bindparam("new_places"))
)
_COUNT_ENDS = text(
    "INSERT INTO ended_jobs (state, jobs) VALUES (:state, :jobs)"
    " ON CONFLICT (state) DO UPDATE SET jobs = ended_jobs.jobs + excluded.jobs"
)


def _keep_jobs(connection: Connection, found: Sequence[_Job]) -> None:
    whole = [job for job in found if not job.only_reason]
    if only_reasons := [
        {"id": job.job_id, "new_reason": job.reason, "new_detail": job.detail} for job in found if job.only_reason
    ]:
        connection.execute(_KEEP_REASON, only_reasons)
    if whole:
        connection.execute(
            _KEEP_JOB,
            [
                {
                    "id": job.job_id,
                    "new_state": job.state,
                    "new_reason": job.reason,
                    "new_detail": job.detail,
                    "new_started_ms": job.started_ms,
                    "new_ended_ms": job.ended_ms,
                    "new_site": job.site,
                    "new_attempts": job.attempts,
                    "new_exit_code": job.exit_code,
                    "new_signal": job.signal,
                }
                for job in whole
            ],
        )
    if ends := Counter(job.state for job in whole if job.state.is_end):
        connection.execute(_COUNT_ENDS, [{"state": state, "jobs": number} for state, number in sorted(ends.items())])


def _keep_attempts(connection: Connection, touched: Sequence[_Attempt], found: Mapping[int, _Job]) -> None:
    # Those that ended go first: the database allows one live attempt of a job at any moment.
    if old := [attempt for attempt in touched if not attempt.is_new]:
        connection.execute(
            _KEEP_ATTEMPT,
            [
                {
                    "id": attempt.job_id,
                    "of": attempt.number,
                    "new_state": attempt.state,
                    "new_started_ms": attempt.started_ms,
                    "new_ended_ms": attempt.ended_ms,
                    "new_outcome": attempt.outcome,
                    "new_exit_code": attempt.exit_code,
                    "new_signal": attempt.signal,
                    "new_cause": attempt.cause,
                }
                for attempt in old
            ],
        )
    if moved := [attempt for attempt in touched if not attempt.is_new and attempt.places is not None]:
        connection.execute(
            _KEEP_PLACES,
            [
                {"id": attempt.job_id, "of": attempt.number, "new_places": places_text(attempt.places or ())}
                for attempt in moved
            ],
        )
    if new := [attempt for attempt in touched if attempt.is_new]:
        connection.execute(
            insert(attempts),
            [
                {
                    "job_id": attempt.job_id,
                    "number": attempt.number,
                    "name": attempt.name,
                    "site": attempt.site,
                    "tenant": found[attempt.job_id].tenant,
                    "user_name": found[attempt.job_id].user,
                    "gpu_milli": found[attempt.job_id].gpu_milli,
                    "cpu_milli": found[attempt.job_id].cpu_milli,
                    "state": attempt.state,
                    "places": places_text(attempt.places or ()),
                    "intended_ms": attempt.intended_ms,
                    "started_ms": attempt.started_ms,
                    "ended_ms": attempt.ended_ms,
                    "outcome": attempt.outcome,
                    "exit_code": attempt.exit_code,
                    "signal": attempt.signal,
                    "cause": attempt.cause,
                }
                for attempt in new
            ],
        )
