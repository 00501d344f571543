"""Jobs over HTTP: submit, list, look at, change, wait for, follow."""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response, StreamingResponse
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from watteau.domain.people import Role
from watteau.domain.records import Event, EventKind, JobRecord
from watteau.domain.requests import AttemptState, JobId, JobState, Request
from watteau.domain.units import TenantId
from watteau.engines.contract import EngineUnreachable, LogPart
from watteau.server.problems import Refusal, documented, invalid, not_found
from watteau.server.schemas import (
    MOST_LOG_BYTES,
    MOST_PAGE_JOBS,
    AttemptsView,
    AttemptView,
    BulkBody,
    BulkView,
    ChangedView,
    EventView,
    FieldError,
    JobDetail,
    JobView,
    PageView,
    StoryView,
    SubmittedView,
    WhyView,
)
from watteau.server.service import (
    Access,
    JobAccess,
    RawJson,
    Services,
    at,
    guard,
    guard_job,
    identify,
    parse,
    takes,
    visible_job,
)
from watteau.store.store import IdempotencyKey, JobFilter, StoreUnavailable

router = APIRouter(prefix="/api/v1", tags=["jobs"])

MOST_STORY_EVENTS = 10_000
_MOST_WAIT_S = 3_600.0
_EVENTS_AT_ONCE = 500
_PING_S = 15.0
#: A log grows without an event: it is looked at again after this, and less often the longer nothing comes.
_LOG_FIRST_S, _LOG_LAST_S = 0.1, 1.0
_SEQ_MAX = 2**63 - 1
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Anyone = Annotated[Access, Depends(guard)]
OnJob = Annotated[JobAccess, Depends(guard_job)]
IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A word of your choice for this request: sent again with the same body, it is not carried out "
        "again but answered as the first time.",
        max_length=255,
        pattern=r"^[!-~]+$",
        examples=["5f8a2c7e-train-1"],
    ),
]
WholeArray = Annotated[
    bool, Query(description="With the id of an array (its first task's): all tasks of the array.", examples=[False])
]
LogStream = Annotated[Literal["stdout", "stderr"], Query(description="Which output.")]
AfterSeq = Annotated[int, Query(ge=0, le=_SEQ_MAX, description="Only what came after this seq.", examples=[0])]


# --- submit -----------------------------------------------------------------------------------------------------------


@router.post(
    "/jobs",
    operation_id="submit_job",
    summary="Submit a job",
    status_code=201,
    response_model=JobView,
    responses={
        201: {
            "description": "The job is kept. Of an array: its first task.",
            "headers": {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}},
        },
        **documented(400, 401, 403, 409, 413, 415, 422),
    },
    openapi_extra=takes(Request),
)
def submit_job(access: Anyone, raw: RawJson, key: IdempotencyHeader = None) -> Response:
    """Keep a job; the answer means that it will not be lost. An array becomes one job for each task."""
    request = parse(Request, raw)
    jobs = _submit(access, [request], [""], raw, key)
    view = JobView.of(jobs[0])
    return Response(view.model_dump_json(), 201, {"Location": f"/api/v1/jobs/{view.id}"}, media_type="application/json")


@router.post(
    "/jobs/bulk",
    operation_id="submit_jobs",
    summary="Submit many jobs at once",
    status_code=201,
    response_model=BulkView,
    responses=documented(400, 401, 403, 409, 413, 415, 422),
    openapi_extra=takes(BulkBody),
)
def submit_jobs(access: Anyone, raw: RawJson, key: IdempotencyHeader = None) -> Response:
    """Keep up to 10,000 jobs, all or none. When some are invalid, every one of them is named."""
    requests = parse(BulkBody, raw).jobs
    jobs = _submit(access, requests, [f"/jobs/{position}" for position in range(len(requests))], raw, key)
    submitted, first = [], 0
    for request in requests:
        tasks = len(request.array.indices) if request.array else 1
        submitted.append(SubmittedView(id=jobs[first].job_id, tasks=tasks))
        first += tasks
    return Response(BulkView(jobs=tuple(submitted)).model_dump_json(), 201, media_type="application/json")


def _submit(
    access: Access, requests: Sequence[Request], pointers: Sequence[str], raw: bytes, key: str | None
) -> list[JobRecord]:
    errors: list[FieldError] = []
    tenants = [
        _tenant_of(access, request, f"{place}/tenant", errors)
        for request, place in zip(requests, pointers, strict=True)
    ]
    errors += _unknown_dependencies(access, requests, pointers)
    if errors:
        raise invalid(errors)
    user = access.caller.user
    named = None
    if key is not None:
        named = IdempotencyKey(user.user_id, key, hashlib.sha256(access.operation.encode() + b"\0" + raw).hexdigest())
    services = access.services
    jobs = services.store.submit(list(zip(requests, tenants, strict=True)), user, services.now_ms(), named)
    services.live.wake()
    return jobs


def _tenant_of(access: Access, request: Request, place: str, errors: list[FieldError]) -> TenantId:
    """Who pays: the tenant that is named, or the only one that the caller may submit for."""
    caller, tree = access.caller, access.services.tree
    allowed = caller.part(access.operation)
    if request.tenant is None:
        own = [grant.tenant for grant in caller.user.grants if grant.role in (Role.MEMBER, Role.TENANT_OWNER)]
        part = frozenset().union(*(tree.below(tenant) for tenant in own)) or allowed
        choice = [tenant for tenant in tree.tenants if tenant in part and tree.takes_jobs(tenant)]
        if len(choice) != 1:
            errors.append(at(place, f"say which tenant pays: {_some(choice)}"))
            return tree.root
        return choice[0]
    tenant = TenantId(request.tenant)
    if tenant not in tree.tenants or tenant not in caller.part("list_tenants"):
        errors.append(at(place, f"there is no tenant {request.tenant!r}"))
    elif tenant not in allowed:
        raise Refusal(403, "forbidden", f"None of your roles allows you to submit for the tenant {tenant}.")
    elif not tree.takes_jobs(tenant):
        below = [each for each in tree.tenants if each in tree.below(tenant) and tree.takes_jobs(each)]
        errors.append(at(place, f"{tenant} has tenants below it, and jobs belong to one of those: {_some(below)}"))
    return tenant


def _some(tenants: Sequence[TenantId]) -> str:
    shown = ", ".join(sorted(tenants)[:10])
    return f"{shown}, ..." if len(tenants) > 10 else shown or "you have none"


def _unknown_dependencies(access: Access, requests: Sequence[Request], pointers: Sequence[str]) -> Iterator[FieldError]:
    """A job may only wait for jobs that its owner may see: otherwise it would tell which ones there are."""
    named = {dependency.job_id for request in requests for dependency in request.dependencies}
    if not named:
        return
    caller = access.caller
    seen = {
        live.job.job_id
        for live in access.services.store.live_by_id([JobId(job_id) for job_id in named])
        if caller.may_with_job("show_job", live.job.tenant, live.job.user)
    }
    for request, place in zip(requests, pointers, strict=True):
        for position, dependency in enumerate(request.dependencies):
            if dependency.job_id not in seen:
                yield at(f"{place}/dependencies/{position}/job_id", f"there is no job {dependency.job_id}")


# --- look -------------------------------------------------------------------------------------------------------------


@router.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List jobs",
    response_model=PageView,
    responses=documented(401, 403, 404, 422),
)
def list_jobs(
    access: Anyone,
    state: Annotated[list[JobState], Query(description="Only these states; may be given several times.")] = [],  # noqa: B006
    tenant: Annotated[
        str | None, Query(max_length=128, description="Only this tenant and all below it.", examples=["alpha"])
    ] = None,
    user: Annotated[
        str, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only this user's.", examples=["ada"])
    ] = "",
    name: Annotated[
        str, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only with this in the name.", examples=["train"])
    ] = "",
    site: Annotated[
        str, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only at this site.", examples=["paris"])
    ] = "",
    array: Annotated[
        int | None, Query(ge=1, le=_SEQ_MAX, description="Only tasks of this array.", examples=[17])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_PAGE_JOBS, description="How many on a page.")] = 100,
    cursor: Annotated[
        str | None,
        Query(max_length=512, pattern=r"^[^\x00]*$", description="`next_cursor` of the page before."),
    ] = None,
) -> Response:
    """Jobs that the caller may see, newest first. All conditions hold at once."""
    tenants = access.caller.scope_of_rows(access.operation)
    if tenant is not None:
        below = access.services.tree.below(TenantId(tenant))
        tenants = below if tenants is None else below & tenants
        if not tenants:
            raise not_found(f"tenant {tenant!r}")
    only = JobFilter(
        tenants=tenants,
        states=frozenset(state),
        user=user,
        name_contains=name,
        array_id=None if array is None else JobId(array),
        site=site,
    )
    try:
        page = access.services.store.jobs(only, limit, cursor)
    except ValueError:
        raise invalid([at("#query/cursor", "not a cursor that this server gave")]) from None
    view = PageView(jobs=tuple(JobView.of(job) for job in page.jobs), next_cursor=page.next_cursor)
    return Response(view.model_dump_json(), media_type="application/json")


@router.get(
    "/jobs/{job}",
    operation_id="show_job",
    summary="Show a job",
    response_model=JobDetail,
    responses=documented(401, 403, 404, 422),
)
def show_job(access: OnJob) -> JobDetail:
    """The job as it stands, and what was asked for; of environment variables only the names."""
    return JobDetail.of(access.job)


@router.get(
    "/jobs/{job}/why",
    operation_id="explain_job",
    summary="Why does it wait?",
    response_model=WhyView,
    responses=documented(401, 403, 404, 422),
)
def explain_job(access: OnJob) -> WhyView:
    """The dominant reason, in one sentence, with the figures behind it."""
    job = access.job
    view = JobView.of(job)
    return WhyView(
        job=view,
        reason=job.reason.name,
        code=job.reason.value,
        sentence=view.reason_sentence,
        detail=job.detail,
        is_final=job.reason.is_final,
        evidence=None if job.state.is_end else access.services.live.why(job.job_id),
    )


@router.get(
    "/jobs/{job}/story",
    operation_id="tell_job",
    summary="Everything that happened to a job",
    response_model=StoryView,
    responses=documented(401, 403, 404, 422),
)
def tell_job(access: OnJob, after: AfterSeq = 0) -> StoryView:
    """Every event, decision and reason, in order."""
    events = access.services.store.story(access.job.job_id, after, MOST_STORY_EVENTS)
    return StoryView(
        job=JobView.of(access.job),
        events=tuple(EventView.of(event) for event in events),
        next_after=events[-1].seq if len(events) == MOST_STORY_EVENTS else None,
    )


@router.get(
    "/jobs/{job}/attempts",
    operation_id="list_attempts",
    summary="A job's attempts",
    response_model=AttemptsView,
    responses=documented(401, 403, 404, 422),
)
def list_attempts(access: OnJob) -> AttemptsView:
    """Every try at running the job, oldest first."""
    attempts = access.services.store.attempts(access.job.job_id)
    return AttemptsView(attempts=tuple(AttemptView.of(attempt) for attempt in attempts))


# --- change -----------------------------------------------------------------------------------------------------------


@router.post(
    "/jobs/{job}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=ChangedView,
    responses=documented(401, 403, 404, 409, 422),
)
def cancel_job(access: OnJob, array: WholeArray = False) -> ChangedView:
    """Ask a job to end; a job that has ended stays as it is. It is cancelled when its state says so."""
    return _ask(access, EventKind.CANCEL_REQUESTED, array)


@router.post(
    "/jobs/{job}/hold",
    operation_id="hold_job",
    summary="Hold a job",
    response_model=ChangedView,
    responses=documented(401, 403, 404, 409, 422),
)
def hold_job(access: OnJob, array: WholeArray = False) -> ChangedView:
    """Keep a waiting job from starting, until it is released. A job that runs or has ended is a conflict."""
    if not array and access.job.state not in (JobState.WAITING, JobState.HELD):
        raise Refusal(
            409, "conflict", f"Job {access.job.label} is {access.job.state.value}; only a waiting one can be held."
        )
    return _ask(access, EventKind.HELD, array)


@router.post(
    "/jobs/{job}/release",
    operation_id="release_job",
    summary="Release a held job",
    response_model=ChangedView,
    responses=documented(401, 403, 404, 409, 422),
)
def release_job(access: OnJob, array: WholeArray = False) -> ChangedView:
    """Let a held job wait for its start again. A job that has ended is a conflict."""
    if not array and access.job.state.is_end:
        raise Refusal(409, "conflict", f"Job {access.job.label} has ended.")
    return _ask(access, EventKind.RELEASED, array)


def _ask(access: JobAccess, kind: EventKind, whole_array: bool) -> ChangedView:
    services, job = access.services, access.job
    job_ids = [job.job_id]
    if whole_array:
        if job.array_id != job.job_id:
            raise Refusal(409, "conflict", f"{job.label} is not the id of an array.")
        # The first task's owner and tenant are those of all: an array is one submission.
        job_ids = (
            [JobId(job.job_id + position) for position in range(len(job.request.array.indices))]
            if (job.request.array)
            else job_ids
        )
    changed = services.store.ask(job_ids, kind, access.caller.user, services.now_ms())
    services.live.wake()
    return ChangedView(jobs=tuple(JobView.of(each) for each in changed))


# --- wait and follow --------------------------------------------------------------------------------------------------


@router.get(
    "/jobs/{job}/wait",
    operation_id="wait_job",
    summary="Wait for a job's end",
    response_model=JobView,
    responses=documented(401, 403, 404, 422),
)
async def wait_job(
    http: HttpRequest,
    access: OnJob,
    timeout_s: Annotated[
        float, Query(ge=0, le=_MOST_WAIT_S, allow_inf_nan=False, description="Seconds after which it answers anyway.")
    ] = 30.0,
) -> JobView:
    """Answer when the job has ended, or after `timeout_s` with the job as it stands then."""
    http.state.streams = True
    services, job = access.services, access.job
    until_ms = services.now_ms() + int(timeout_s * 1000)
    with services.pulse.watch() as watch:
        while True:
            job = await run_in_threadpool(services.store.job, job.job_id)
            left_s = (until_ms - services.now_ms()) / 1000
            if job.state.is_end or left_s <= 0 or watch.is_over:
                return JobView.of(job)
            await watch.next(left_s)


_LOG_HEADERS = {
    "X-Log-Attempt": {"description": "Which attempt's output it is; 0: none yet.", "schema": {"type": "integer"}},
    "X-Log-End": {"description": "Give it as `start` to go on.", "schema": {"type": "integer"}},
    "X-Log-Complete": {"description": "`true`: nothing more will come.", "schema": {"type": "string"}},
}


@router.get(
    "/jobs/{job}/log",
    operation_id="read_log",
    summary="A job's output",
    response_class=Response,
    responses={
        200: {
            "description": "Bytes as the job wrote them. With `follow`, without X-Log-End and X-Log-Complete.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": _LOG_HEADERS,
        },
        **documented(401, 403, 404, 422),
    },
)
async def read_log(
    http: HttpRequest,
    access: OnJob,
    stream: LogStream = "stdout",
    start: Annotated[int, Query(ge=0, le=_SEQ_MAX, description="From this byte on.")] = 0,
    most: Annotated[int, Query(ge=1, le=MOST_LOG_BYTES, description="At most so many bytes, unless followed.")] = 1
    << 20,
    attempt: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Of this attempt; the last one when left out.")
    ] = None,
    follow: Annotated[bool, Query(description="Go on until the job (or the named attempt) has ended.")] = False,
) -> Response:
    """A piece of what the job wrote, or all of it as it is written."""
    reader = _LogReader(access.services, access.job, stream, attempt)
    if follow:
        http.state.streams = True
        first = await run_in_threadpool(reader.read, start, MOST_LOG_BYTES)
        return StreamingResponse(
            reader.follow(first), headers={"X-Log-Attempt": str(reader.number)}, media_type="text/plain; charset=utf-8"
        )
    part = await run_in_threadpool(reader.read, start, most)
    headers = {
        "X-Log-Attempt": str(reader.number),
        "X-Log-End": str(part.end),
        "X-Log-Complete": "true" if part.complete else "false",
    }
    return Response(part.content, headers=headers, media_type="text/plain; charset=utf-8")


class _LogReader:
    """Reads one stream of a job's output, attempt after attempt when none was named."""

    def __init__(self, services: Services, job: JobRecord, stream: str, attempt: int | None) -> None:
        self._services = services
        self._job = job
        self._stream = stream
        self._named = attempt
        self.number = attempt or job.attempts

    def read(self, start: int, most: int) -> LogPart:
        """A piece. Empty and incomplete while there is nothing yet. Raises Refusal (404) when there never will be."""
        job = self._job
        if self.number > job.attempts:
            raise not_found(f"attempt {self.number} of job {job.label}")
        if self.number == 0:
            return LogPart(b"", start, job.state.is_end)
        try:
            return self._services.live.log(job.job_id, self.number, self._stream, start, most)
        except FileNotFoundError:
            attempts = self._services.store.attempts(job.job_id)
            state = next((each.state for each in attempts if each.number == self.number), AttemptState.ENDED)
            if state is AttemptState.ENDED:
                raise Refusal(
                    404,
                    "no_log",
                    f"No {self._stream} of attempt {self.number} is kept: the job wrote it elsewhere, or never ran.",
                ) from None
            return LogPart(b"", start, False)

    async def follow(self, part: LogPart) -> AsyncIterator[bytes]:
        """All pieces from a first one on, until nothing more will come."""
        pause_s = _LOG_FIRST_S
        with self._services.pulse.watch() as watch:
            while not watch.is_over:
                if part.content:
                    yield part.content
                    pause_s = _LOG_FIRST_S
                elif part.complete and (self._named or self._job.state.is_end) and self.number >= self._job.attempts:
                    return
                elif part.complete and self.number < self._job.attempts and not self._named:
                    self.number += 1
                    part = LogPart(b"", 0, False)
                else:
                    await watch.next(pause_s)
                    pause_s = min(pause_s * 2, _LOG_LAST_S)
                # The job is read before its log: one that had ended then has written all that is read now.
                self._job = await run_in_threadpool(self._services.store.job, self._job.job_id)
                if not self._named and not self.number:
                    self.number = min(1, self._job.attempts)
                try:
                    part = await run_in_threadpool(self.read, part.end, MOST_LOG_BYTES)
                except EngineUnreachable:
                    part = LogPart(b"", part.end, False)
                except Refusal:
                    part = LogPart(b"", part.end, True)


@router.get(
    "/events",
    operation_id="watch_events",
    summary="Follow what happens",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events: `id` is the seq, `event` the kind, `data` an EventView. "
            "A comment comes every 15 seconds while nothing happens.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(401, 403, 404, 422),
    },
)
async def watch_events(
    http: HttpRequest,
    access: Anyone,
    job: Annotated[str | None, Query(max_length=32, description="Only this job.", examples=["17"])] = None,
    after: Annotated[
        int | None, Query(ge=0, le=_SEQ_MAX, description="From this seq on; from now on when left out.")
    ] = None,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID", ge=0, le=_SEQ_MAX, description="Where a broken stream had got to; beats `after`."
        ),
    ] = None,
) -> EventSourceResponse:
    """Events of jobs that the caller may see, as they are written. No event is left out on reconnecting."""
    http.state.streams = True
    services = access.services
    record = None if job is None else await run_in_threadpool(visible_job, access, job)
    began = last_event_id if last_event_id is not None else after
    if began is None:
        began = await run_in_threadpool(services.store.last_seq)

    def read(seq: int) -> tuple[list[Event], int]:
        # Asked anew each time: a token may be revoked, and a role taken away, while the stream is open.
        caller = identify(services, http.headers.get("authorization"))
        now = Access(services, access.operation, caller)
        newest = services.store.last_seq()  # before the events: all up to here are in what is read next
        if record is not None:
            visible_job(now, str(record.job_id))
            events = services.store.story(record.job_id, seq, _EVENTS_AT_ONCE)
        else:
            events = services.store.events(seq, _EVENTS_AT_ONCE, caller.scope_of_rows(access.operation))
        if len(events) == _EVENTS_AT_ONCE:
            return events, events[-1].seq
        return events, max(newest, events[-1].seq if events else seq)

    return EventSourceResponse(_stream(services, read, began), ping=int(_PING_S), headers={"X-Accel-Buffering": "no"})


async def _stream(
    services: Services, read: Callable[[int], tuple[list[Event], int]], seq: int
) -> AsyncIterator[ServerSentEvent]:
    with services.pulse.watch() as watch:
        while not watch.is_over:
            try:
                events, seq = await run_in_threadpool(read, seq)
            except (Refusal, StoreUnavailable):
                return  # the client comes back with its last id, and is told why it may not
            for event in events:
                yield ServerSentEvent(EventView.of(event).model_dump_json(), id=str(event.seq), event=event.kind.value)
            if len(events) < _EVENTS_AT_ONCE:
                await watch.next(_PING_S)
