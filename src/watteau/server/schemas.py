"""What the API says and hears, besides a submission (`domain.requests.Request`): the models of its JSON bodies.

The client and the command line read answers with the same models, so this module needs pydantic and the domain only.
Times are RFC 3339 in UTC. Models ignore fields that they do not know, so that an older client reads a newer server;
bodies that come in (`...Body`) refuse them, so that a misspelt field is not lost in silence.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.fleet import Mode
from watteau.domain.people import Grant, Role
from watteau.domain.records import AttemptRecord, Event, EventKind, JobRecord
from watteau.domain.requests import AttemptState, JobState, Kind, Outcome, Request
from watteau.domain.sites import Difference, NodeState, SiteJob, SiteNode, SiteSetting
from watteau.domain.units import GPU_MILLI, TenantId

MOST_BULK_JOBS = 10_000
MOST_PAGE_JOBS = 1_000
MOST_LOG_BYTES = 4 << 20
_YEAR_S = 366 * 86_400

#: A word from outside that is compared with ours: short, and without control characters.
Word = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _is_date_time(said: str) -> str:
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", said):
        raise ValueError("a date and time with its offset, as 2026-01-05T12:00:00Z (RFC 3339)")
    return said


#: In a query. Pydantic alone takes a number, too, and guesses whether it means seconds or milliseconds.
Instant = Annotated[AwareDatetime, BeforeValidator(_is_date_time)]
USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", re.ASCII)
UserName = Annotated[str, StringConstraints(pattern=f"^{USER_NAME.pattern}$")]
Password = Annotated[str, StringConstraints(min_length=10, max_length=256, pattern=r"^[^\x00]*$")]


def moment(epoch_ms: int) -> datetime:
    """The UTC moment of one of our epoch milliseconds."""
    return datetime.fromtimestamp(epoch_ms // 1000, UTC).replace(microsecond=epoch_ms % 1000 * 1000)


def moment_or_none(epoch_ms: int | None) -> datetime | None:
    """The same, where there may be none."""
    return None if epoch_ms is None else moment(epoch_ms)


def epoch_ms(at: datetime) -> int:
    """Epoch milliseconds of a moment with a zone, rounded down."""
    span = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * 1000 + span.microseconds // 1000


class Scope(StrEnum):
    """What a token may be used for, at most; what its account may do is another matter."""

    READ = "read"
    SUBMIT = "submit"  # and change jobs
    ADMIN = "admin"  # accounts and tokens


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# --- errors -----------------------------------------------------------------------------------------------------------


class FieldError(_View):
    """One thing that is wrong with a request."""

    pointer: str = Field(
        description="Where: a JSON pointer into the body, or `#query/NAME`, `#path/NAME`, `#header/NAME`.",
        examples=["/jobs/3/workers"],
    )
    message: str = Field(description="What is wrong there.", examples=["Input should be greater than or equal to 1"])


class Problem(_View):
    """An error, as RFC 9457 says it; `code`, `request_id` and `errors` are ours."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "code": "not_found",
                    "detail": "There is no job 17.",
                    "instance": "/api/v1/jobs/17",
                    "request_id": "6f0c9a41d2b7e835",
                    "errors": [],
                }
            ]
        },
    )

    type: str = Field("about:blank", description="Always `about:blank`: `status` and `code` say what it is.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(ge=400, le=599, description="The HTTP status.", examples=[404])
    code: str = Field(description="A stable word for programs.", examples=["not_found"])
    detail: str = Field("", description="One sentence for a person.", examples=["There is no job 17."])
    instance: str = Field("", description="The path that was asked for.", examples=["/api/v1/jobs/17"])
    request_id: str = Field("", description="The same as in the answer's X-Request-ID and in the server's log.")
    errors: tuple[FieldError, ...] = Field((), description="Every invalid field, when the request was invalid.")


# --- jobs -------------------------------------------------------------------------------------------------------------


class ArrayPlace(_View):
    """Which task of which array a job is."""

    id: int = Field(description="Id of the array: that of its first task.", examples=[17])
    index: int = Field(description="The task's index.", examples=[3])


class JobView(_View):
    """A job as it stands."""

    id: int = Field(description="The job's number.", examples=[19])
    label: str = Field(description="How people name it: 19, or 17_3 for index 3 of array 17.", examples=["17_3"])
    name: str = Field(description="The name that its owner gave it.", examples=["train"])
    kind: Kind = Field(description="Runs to its end, serves until stopped, or is used by a person.")
    tenant: str = Field(description="Who pays.", examples=["alpha"])
    user: str = Field(description="Who submitted it.", examples=["ada"])
    state: JobState = Field(description="Where it stands; the last six are ends.")
    reason: str = Field(description="Why it waits, or NONE; see the reference of reasons.", examples=["CAPACITY"])
    reason_sentence: str = Field(description="The reason in one sentence.")
    detail: str = Field(description="What the reason means here, or the cause of an end; may be empty.")
    submitted_at: datetime = Field(description="When it was acknowledged.", examples=["2026-01-05T12:00:00.250000Z"])
    started_at: datetime | None = Field(description="When its last attempt began to run; null: none has.")
    ended_at: datetime | None = Field(description="When it ended; null: it has not.")
    site: str | None = Field(description="Where it runs or last ran.", examples=["paris"])
    exit_code: int | None = Field(description="Of its last attempt; null when none ended by itself.", examples=[0])
    signal: int | None = Field(description="The signal that ended its last attempt, if one did.", examples=[9])
    attempts: int = Field(description="How often it was tried so far.", examples=[1])
    cancel_requested: bool = Field(description="Whether someone wants it to end.")
    priority: int = Field(description="Priority class: -100 low, 0 normal, 100 high.", examples=[0])
    workers: int = Field(description="Size of the gang.", examples=[2])
    gpus: float = Field(description="GPUs of the whole gang; a fraction of one is possible.", examples=[16.0])
    time_limit_s: int = Field(description="Seconds after which it is stopped; 0: no limit.", examples=[3600])
    array: ArrayPlace | None = Field(description="Null when it is not a task of an array.")

    @classmethod
    def of(cls, job: JobRecord) -> Self:
        """The view of a stored job."""
        return cls(**_job_fields(job))


class DependencyView(_View):
    """What the job waits for in another one."""

    after: str = Field(description="Slurm's word: after, afterany, afterok, afternotok, aftercorr.")
    job_id: int = Field(description="The other job, or the first task of an array.")
    delay_s: int = Field(description="Only with `after`: this long after it began.")


class RequestView(_View):
    """What was asked for. The values of its environment variables are never shown, only their names."""

    command: tuple[str, ...] = Field(description="The argument list; empty when it is a script.")
    script: str = Field(description="The script's text; empty when it is a command.")
    arguments: tuple[str, ...] = Field(description="Arguments of the script.")
    gpu_milli: int = Field(description="Thousandths of a GPU for each worker.")
    cpu_milli: int = Field(description="Thousandths of a CPU core for each worker.")
    memory_mib: int = Field(description="Memory of each worker in MiB; 0: not limited.")
    gpu_models: tuple[str, ...] = Field(description="Allowed GPU models; empty: any.")
    sites: tuple[str, ...] = Field(description="Allowed sites; empty: any.")
    topology: int = Field(description="0 anywhere, 1 one block preferred, 2 one block required.")
    estimate_s: int = Field(description="Expected run time in seconds; 0: not said.")
    workdir: str = Field(description="Where it runs; empty: a folder of its own.")
    stdout: str = Field(description="Where its output goes; empty: kept by the engine.")
    stderr: str = Field(description="Where its error output goes; empty: together with stdout.")
    environment_names: tuple[str, ...] = Field(description="Names of its environment variables.")
    dependencies: tuple[DependencyView, ...] = Field(description="What it waits for.")
    dependency_mode: str = Field(description="Whether `all` of them must hold, or `any`.")
    singleton: bool = Field(description="Whether it waits until no other job of this name and user runs.")
    begin_s: int | None = Field(description="Not before this epoch second.")
    deadline_s: int | None = Field(description="Cancelled when not ended by this epoch second.")
    requeue: bool = Field(description="Whether it starts again when it was lost through no fault of its own.")


class JobDetail(JobView):
    """A job as it stands, and what was asked for."""

    request: RequestView = Field(description="What was asked for.")

    @classmethod
    def of(cls, job: JobRecord) -> Self:
        """The view of a stored job."""
        asked = job.request
        fields = set(RequestView.model_fields) - {"environment_names", "dependencies"}
        request = RequestView(
            **{name: getattr(asked, name) for name in fields},
            environment_names=tuple(sorted(asked.environment)),
            dependencies=tuple(
                DependencyView(after=each.after.value, job_id=each.job_id, delay_s=each.delay_s)
                for each in asked.dependencies
            ),
        )
        return cls(**_job_fields(job), request=request)


def _job_fields(job: JobRecord) -> dict[str, Any]:
    request = job.request
    return {
        "id": job.job_id,
        "label": job.label,
        "name": request.name,
        "kind": request.kind,
        "tenant": job.tenant,
        "user": job.user,
        "state": job.state,
        "reason": job.reason.name,
        "reason_sentence": _reason_in_words(job),
        "detail": job.detail,
        "submitted_at": moment(job.submitted_ms),
        "started_at": moment_or_none(job.started_ms),
        "ended_at": moment_or_none(job.ended_ms),
        "site": job.site,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "priority": int(request.priority),
        "workers": request.workers,
        "gpus": request.workers * request.gpu_milli / GPU_MILLI,
        "time_limit_s": request.time_limit_s,
        "array": None
        if job.array_id is None or job.array_index is None
        else ArrayPlace(id=job.array_id, index=job.array_index),
    }


def _reason_in_words(job: JobRecord) -> str:
    if job.reason is Reason.NONE and job.state is JobState.WAITING:
        return "The job has not been looked at yet."
    return SENTENCE[job.reason]


class PageView(_View):
    """Some jobs, newest first."""

    jobs: tuple[JobView, ...] = Field(description="The jobs of this page.")
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null: this was the last.")


class ChangedView(_View):
    """The jobs that someone wanted changed, as they stand now."""

    jobs: tuple[JobView, ...] = Field(description="One job, or all tasks of the array.")


class SubmittedView(_View):
    """One submission of many."""

    id: int = Field(description="The job, or the first task of the array.", examples=[17])
    tasks: int = Field(description="How many jobs it became: tasks have consecutive ids from `id` on.", examples=[1])


class BulkView(_View):
    """All submissions of a bulk, in the order in which they were given."""

    jobs: tuple[SubmittedView, ...] = Field(description="One for each.")


class AttemptView(_View):
    """One try at running a job."""

    number: int = Field(description="From 1 on.", examples=[1])
    name: str = Field(description="The name by which the engine knows it.", examples=["watteau-17-1"])
    site: str = Field(description="Where.", examples=["paris"])
    state: AttemptState = Field(description="`unknown`: its engine is silent; it is neither failed nor restarted.")
    workers: int = Field(description="Workers of the gang that were placed.", examples=[2])
    places: tuple["PlaceView", ...] = Field(description="Where each worker is.")
    intended_at: datetime = Field(description="When it was decided.")
    started_at: datetime | None = Field(description="When the engine ran it; null: not yet, or never.")
    ended_at: datetime | None = Field(description="When it ended.")
    outcome: Outcome | None = Field(description="How it ended; `lost`: not the job's fault.")
    exit_code: int | None = Field(description="Its exit status, if it had one.", examples=[0])
    signal: int | None = Field(description="The signal that ended it, if one did.", examples=[9])
    cause: str = Field(description="One sentence when it did not simply complete.")

    @classmethod
    def of(cls, attempt: AttemptRecord) -> Self:
        """The view of a stored attempt."""
        return cls(
            number=attempt.number,
            name=attempt.name,
            site=attempt.site,
            state=attempt.state,
            workers=len(attempt.places),
            places=tuple(PlaceView(pool=each.pool, node=each.node, gpus=each.gpus) for each in attempt.places),
            intended_at=moment(attempt.intended_ms),
            started_at=moment_or_none(attempt.started_ms),
            ended_at=moment_or_none(attempt.ended_ms),
            outcome=attempt.outcome,
            exit_code=attempt.exit_code,
            signal=attempt.signal,
            cause=attempt.cause,
        )


class PlaceView(_View):
    """Where one worker is."""

    pool: str = Field(description="The pool.", examples=["paris-h100"])
    node: int = Field(description="The node of the pool, from 0.", examples=[12])
    gpus: tuple[int, ...] = Field(
        description="The GPUs on it, from 0; empty at a Slurm site, which chooses them itself.", examples=[[0, 1]]
    )


class AttemptsView(_View):
    """A job's attempts."""

    attempts: tuple[AttemptView, ...] = Field(description="Oldest first.")


class EventView(_View):
    """One line of the log of everything that happened."""

    seq: int = Field(description="Its place in the log; rises, with gaps.", examples=[4711])
    at: datetime = Field(description="When, by Watteau's clock.")
    job_id: int = Field(description="The job.", examples=[17])
    attempt: int | None = Field(description="The attempt that it is about, if any.", examples=[1])
    kind: EventKind = Field(description="What happened.")
    text: str = Field(description="The same in one sentence.", examples=["Attempt 1 runs at paris."])
    data: dict[str, Any] = Field(description="Its particulars, by kind.")

    @classmethod
    def of(cls, event: Event) -> Self:
        """The view of a stored event."""
        return cls(
            seq=event.seq,
            at=moment(event.at_ms),
            job_id=event.job_id,
            attempt=event.attempt,
            kind=event.kind,
            text=sentence(event.kind, event.attempt, event.data),
            data=dict(event.data),
        )


class StoryView(_View):
    """What happened to a job, oldest first."""

    job: JobView = Field(description="The job as it stands now.")
    events: tuple[EventView, ...] = Field(description="Everything after `after`, at most 10,000 events.")
    next_after: int | None = Field(description="Give it as `after` to go on; null: that was all so far.")


def sentence(kind: EventKind, attempt: int | None, data: Mapping[str, Any]) -> str:
    """An event in words. What an older or newer server left out of `data` is left out of the sentence."""

    def word(name: str, before: str = "", after: str = "") -> str:
        value = data.get(name)
        return f"{before}{value}{after}" if value not in (None, "") else ""

    nodes = data.get("nodes") or ()
    on_nodes = f" on {', '.join(map(str, nodes))}" if nodes else ""
    match kind:
        case EventKind.SUBMITTED:
            return f"Submitted{word('user', ' by ')}{word('tenant', ' for ')}."
        case EventKind.HELD:
            return f"Held{word('user', ' by ')}."
        case EventKind.RELEASED:
            return f"Released{word('user', ' by ')}."
        case EventKind.CANCEL_REQUESTED:
            return f"Cancelling was asked for{word('user', ' by ')}."
        case EventKind.WAITING:
            if data.get("reason") in (0, "NONE", None):
                return "Waits to be looked at."
            return f"Waits: {reason_sentence(data.get('reason'))}{word('detail', ' (', ')')}"
        case EventKind.INTENDED:
            return f"Attempt {attempt} was decided{word('site', ' for site ')}."
        case EventKind.STARTED:
            return f"Attempt {attempt} runs{word('site', ' at ')}{on_nodes}."
        case EventKind.SILENT:
            return f"The engine of attempt {attempt} is silent{word('cause', ': ')}."
        case EventKind.ANSWERED:
            return f"The engine of attempt {attempt} answers again."
        case EventKind.ENDED:
            how = f"{word('outcome', ': ')}{word('exit_code', ', exit code ')}{word('signal', ', signal ')}"
            return f"Attempt {attempt} ended{how}{word('cause', ' (', ')')}."
        case EventKind.REQUEUED:
            return "It waits again, through no fault of its own."
        case EventKind.FINISHED:
            return f"The job ended{word('state', ': ')}{word('detail', ' (', ')')}."


def reason_sentence(reason: object) -> str:
    """The sentence of a reason that is given by its code or its name."""
    try:
        return SENTENCE[Reason(reason) if isinstance(reason, int) else Reason[str(reason)]]
    except (KeyError, ValueError):
        return str(reason)


class PoolFree(_View):
    """What is free in one pool that a waiting job may use."""

    site: str = Field(description="The site.", examples=["paris"])
    pool: str = Field(description="The pool.", examples=["paris-h100"])
    gpu_model: str = Field(description="Its GPU model.", examples=["H100"])
    gpus_free: float = Field(description="GPUs that are free now.", examples=[3.0])
    nodes_whole: int = Field(description="Nodes that are wholly free.", examples=[0])
    note: str = Field("", description="What keeps the job out of this pool, if anything.")


class Evidence(_View):
    """What only the controller can say of a waiting job."""

    promised_start: datetime | None = Field(None, description="It starts then at the latest, if limits are kept.")
    jobs_ahead: int | None = Field(None, description="Waiting jobs before it.", examples=[12])
    pools: tuple[PoolFree, ...] = Field((), description="The pools that it may use.")
    site_says: str = Field(
        "", description="Of an attempt that its site has and has not started: what the site's own scheduler says."
    )
    site_silent: str = Field("", description="Of an attempt whose site does not answer: why. It is not started again.")


class WhyView(_View):
    """Why a job waits, or how it ended."""

    job: JobView = Field(description="The job as it stands.")
    reason: str = Field(description="The dominant reason.", examples=["CAPACITY"])
    code: int = Field(description="Its stable code.", examples=[50])
    sentence: str = Field(description="The reason in one sentence.")
    detail: str = Field(description="What it means here.")
    is_final: bool = Field(description="Whether waiting longer cannot help.")
    evidence: Evidence | None = Field(description="Figures behind it; null when the controller has none.")


# --- the fleet --------------------------------------------------------------------------------------------------------


class SiteView(_View):
    """One site as it is now. Figures are null where they are not known, as of a site that never answered."""

    id: str = Field(description="The site.", examples=["paris"])
    name: str = Field(description="Its name for people.", examples=["Paris"])
    engine: str = Field(description="What runs the jobs there.", examples=["slurm"])
    mode: str = Field(description="The mode in force: observe, shadow or drive.", examples=["drive"])
    fenced: str = Field("", description="Who fenced it and why: its attempts count as lost. Empty: it is not fenced.")
    state: str = Field(description="`ready`; `silent`: its engine does not answer.", examples=["ready"])
    since: datetime | None = Field(None, description="Since when it is in that state.")
    why: str = Field("", description="What is wrong, when it is not ready.")
    nodes_up: int | None = Field(None, description="Nodes that can take work.", examples=[64])
    nodes_total: int | None = Field(None, description="Nodes that are open.", examples=[64])
    gpus_total: int | None = Field(None, description="GPUs of the nodes that are up.", examples=[512])
    gpus_busy: float | None = Field(None, description="GPUs that are given to jobs.", examples=[480.0])
    cpu_cores_total: float | None = Field(None, description="CPU cores of the nodes that are up.", examples=[8192.0])
    cpu_cores_busy: float | None = Field(None, description="CPU cores that are given to jobs.", examples=[7000.0])
    memory_mib_total: int | None = Field(None, description="Memory of the nodes that are up, in MiB.")
    memory_mib_busy: int | None = Field(None, description="Memory that is given to jobs, in MiB.")
    running: int | None = Field(None, description="Watteau's attempts there that have not ended.", examples=[61])
    people_running: int | None = Field(None, description="Jobs that people gave the site's own scheduler and that run.")
    people_waiting: int | None = Field(None, description="... and that wait; each task of an array counts.")
    nodes_out: int | None = Field(None, description="Nodes that take no jobs: drained, down, reserved.", examples=[2])
    engine_version: str = Field("", description="What answers there.", examples=["Slurm 22.05.8 by slurmrestd v0.0.38"])
    power_kw: float | None = Field(None, description="Power at the site's meter in kW, measured or modelled.")
    power_limit_kw: float | None = Field(None, description="What the site may draw, in kW.", examples=[6000.0])
    notes: tuple[str, ...] = Field((), description="What the engine says of itself, for example how limits are kept.")


class SitesView(_View):
    """The fleet's sites."""

    sites: tuple[SiteView, ...] = Field(description="In the order of the fleet file.")


class SettingView(_View):
    """What an operator said of a site last; it stands above the fleet file and outlives restarts."""

    mode: Mode = Field(description="The mode.")
    fenced: bool = Field(description="Whether its attempts count as lost.")
    why: str = Field(description="In the operator's words.", examples=["the cooling failed"])
    by: str = Field(description="Who said it.", examples=["ada"])
    at: datetime = Field(description="When.")

    @classmethod
    def of(cls, setting: SiteSetting) -> Self:
        """The view of a stored setting."""
        return cls(mode=setting.mode, fenced=setting.fenced, why=setting.why, by=setting.by, at=moment(setting.at_ms))


class PartitionView(_View):
    """A queue of the site's own scheduler. 0: no limit."""

    name: str = Field(description="Its name.", examples=["normal"])
    is_default: bool = Field(description="Whether jobs that name none go there.")
    up: bool = Field(description="Whether it takes jobs.")
    nodes: int = Field(description="How many nodes it has.", examples=[64])
    most_time_s: int = Field(description="The longest time limit of a job in seconds.", examples=[86_400])
    most_nodes: int = Field(description="The largest number of nodes of a job.", examples=[16])


class ReservationView(_View):
    """Nodes that a site keeps for someone in [start, end)."""

    name: str = Field(description="Its name.", examples=["maintenance"])
    start: datetime = Field(description="From then on.")
    end: datetime = Field(description="Up to then.")
    nodes: tuple[str, ...] = Field(description="The nodes, by the site's names.")
    flags: tuple[str, ...] = Field(description="The scheduler's own words; MAINT: nobody may use them.")


class SiteDetailView(SiteView):
    """One site as it is now, what was said of it, and what its scheduler offers."""

    fleet_mode: Mode = Field(description="The mode that the fleet file gives; it holds until an operator says another.")
    setting: SettingView | None = Field(description="What an operator said last; null: the fleet file holds.")
    differences: int | None = Field(description="Things that the fleet file and the engine say differently, if known.")
    partitions: tuple[PartitionView, ...] = Field(description="The queues of the site's own scheduler.")
    reservations: tuple[ReservationView, ...] = Field(description="Its reservations, of now and to come.")


class SiteNodeView(_View):
    """One node of a site. What it has is null until the site has shown it to this process."""

    node: str = Field(description="By the name that the site gives it.", examples=["gpu017"])
    pool: str = Field(description="The pool that it is of.", examples=["paris-h100"])
    number: int = Field(description="Its place in the pool, from 0; it never changes.", examples=[16])
    state: NodeState = Field(description="Whether it takes jobs.")
    why: str = Field(description="Why it takes none, in the words of the site's people; empty when it does.")
    gpu_model: str | None = Field(None, description="Its GPU model, as the site says it.", examples=["h100"])
    gpus: int | None = Field(None, description="Its GPUs.", examples=[8])
    cpu_cores: int | None = Field(None, description="Its cores.", examples=[128])
    memory_mib: int | None = Field(None, description="Its memory in MiB.", examples=[2_000_000])

    @classmethod
    def of(cls, node: SiteNode, **has: Any) -> Self:
        """The view of a stored node; `has` is what it has, where that is known."""
        return cls(node=node.node, pool=node.pool, number=node.number, state=node.state, why=node.why, **has)


class SiteNodesView(_View):
    """The nodes that a site has ever shown."""

    nodes: tuple[SiteNodeView, ...] = Field(description="By pool and number; empty where Watteau alone is at work.")


class DifferenceView(_View):
    """One thing that the fleet file and the site's engine say differently."""

    where: str = Field(description="The pool, node or partition.", examples=["pool paris-h100"])
    what: str = Field(description="What differs there.", examples=["nodes"])
    fleet: str = Field(description="What the fleet file says.", examples=["64"])
    engine: str = Field(description="What the engine says.", examples=["63"])
    remedy: str = Field(description="What would make them agree.")

    @classmethod
    def of(cls, found: Difference) -> Self:
        """The view of a difference."""
        return cls(where=found.where, what=found.what, fleet=found.fleet, engine=found.engine, remedy=found.remedy)


class DifferencesView(_View):
    """What a fleet file and a site's engine say differently."""

    differences: tuple[DifferenceView, ...] = Field(description="The largest things first; empty: they agree.")


class HeldView(_View):
    """What a job has of one node."""

    node: str = Field(description="By the name that the site gives it.", examples=["gpu017"])
    gpus: int = Field(description="GPUs of it.", examples=[8])
    cpus: int = Field(description="Cores of it.", examples=[64])
    memory_mib: int = Field(description="Memory of it in MiB.", examples=[512_000])


class SiteJobView(_View):
    """A job that somebody gave to a site's own scheduler, as it was last seen there."""

    site: str = Field(description="The site.", examples=["paris"])
    engine_id: str = Field(description="The scheduler's own number of it.", examples=["1234", "1234_7"])
    name: str = Field(description="The name that its owner gave it.", examples=["train"])
    user: str = Field(description="Whose it is, by the site's names.", examples=["zoe"])
    account: str = Field(description="The scheduler's account.", examples=["atelier"])
    tenant: str = Field(description="Who it counts for, by the fleet file's table of accounts.", examples=["alpha"])
    partition: str = Field(description="The scheduler's queue.", examples=["normal"])
    state: JobState = Field(description="Where it stands, in Watteau's words.")
    reason: str = Field(description="While it waits: the scheduler's own word.", examples=["Priority"])
    tasks: int = Field(description="Of an array's waiting tasks that are listed as one: how many; else 1.")
    workers: int = Field(description="Nodes.", examples=[2])
    gpus: int = Field(description="GPUs on all nodes together.", examples=[16])
    cpus: int = Field(description="Cores on all nodes together.", examples=[128])
    memory_mib: int = Field(description="Memory on all nodes together, in MiB.")
    time_limit_s: int = Field(description="Seconds after which it is stopped; 0: no limit.", examples=[3600])
    priority: int = Field(description="The scheduler's own priority.")
    submitted_at: datetime = Field(description="When it was submitted there.")
    eligible_at: datetime | None = Field(description="When it might have started, had there been room.")
    started_at: datetime | None = Field(description="When it began to run; null: it has not.")
    ended_at: datetime | None = Field(description="When it ended; null: it has not.")
    exit_code: int | None = Field(description="Its exit status, if it had one.", examples=[0])
    signal: int | None = Field(description="The signal that ended it, if one did.", examples=[9])
    cause: str = Field(description="One sentence when it did not simply complete.")
    restarts: int = Field(description="How often the scheduler started it anew.")
    held: tuple[HeldView, ...] = Field(description="What it has or had of each node; empty while it waits.")

    @classmethod
    def of(cls, job: SiteJob) -> Self:
        """The view of a job as it was seen."""
        times = ("submitted", "eligible", "started", "ended")
        same = cls.model_fields.keys() - {"held", *(f"{each}_at" for each in times)}
        return cls(
            **{name: getattr(job, name) for name in same},
            **{f"{each}_at": moment_or_none(getattr(job, f"{each}_ms")) for each in times},
            held=tuple(
                HeldView(node=each.node, gpus=each.gpus, cpus=each.cpus, memory_mib=each.memory_mib)
                for each in job.held
            ),
        )


class SiteJobsView(_View):
    """Some jobs that people gave to a site's own scheduler, newest first."""

    jobs: tuple[SiteJobView, ...] = Field(description="The jobs of this page.")
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null: this was the last.")


class TenantView(_View):
    """One tenant that the caller may see."""

    id: str = Field(description="The tenant.", examples=["alpha"])
    name: str = Field(description="Its name for people.", examples=["Alpha SAS"])
    parent: str | None = Field(description="The tenant above it, where the caller may see that too.")
    share: int = Field(description="Its weight against its siblings.", examples=[1])
    quota_gpus: int | None = Field(description="GPUs that it may use at once; null: no ceiling.")
    takes_jobs: bool = Field(description="Whether jobs belong to it: it has no tenants below it.")
    may_submit: bool = Field(description="Whether the caller may submit for it.")


class TenantsView(_View):
    """Tenants that the caller may see."""

    tenants: tuple[TenantView, ...] = Field(description="Depth first.")


class UsageLine(_View):
    """What one tenant, user or site used."""

    key: str = Field(description="The tenant, user or site.", examples=["alpha"])
    jobs: int = Field(description="Jobs that used something, with those by hand.", examples=[41])
    by_hand_jobs: int = Field(0, description="Of them, jobs that people gave to a site's own scheduler.", examples=[3])
    attempts: int = Field(description="Attempts that ran; a job by hand counts as one.", examples=[43])
    gpu_hours: float = Field(description="GPU-hours, rounded to a thousandth.", examples=[12.5])
    cpu_hours: float = Field(description="CPU-core-hours, rounded to a thousandth.", examples=[200.0])
    gpu_milli_ms: int = Field(description="The same exactly: thousandths of a GPU times milliseconds.")
    cpu_milli_ms: int = Field(description="The same exactly: thousandths of a core times milliseconds.")


class UsageView(_View):
    """Use in [since, until)."""

    by: str = Field(description="What the lines are by.", examples=["tenant"])
    since: datetime = Field(description="From then on.")
    until: datetime = Field(description="Up to then; what still runs counts up to then.")
    usage: tuple[UsageLine, ...] = Field(description="Largest first.")


class SiteEnergyView(_View):
    """What one site drew: jobs + jobs by hand + idle + overhead = meter, exactly. Null: of all tenants only."""

    site: str = Field(description="The site.", examples=["paris"])
    jobs_wh: int = Field(description="IT energy of Watteau's attempts.", examples=[412_000])
    by_hand_wh: int = Field(description="IT energy of jobs that people gave to the site's own scheduler.")
    idle_wh: int | None = Field(None, description="IT energy of GPUs that nobody held.")
    overhead_wh: int | None = Field(None, description="Cooling and losses, by the PUE.")
    site_wh: int | None = Field(None, description="The site's meter: all of these together.")
    supply_wh: int | None = Field(None, description="The site's share of the contracted renewable supply of its hours.")
    matched_wh: int | None = Field(None, description="Of the meter, what renewable supply of the same hour met.")


class HourEnergyView(_View):
    """One hour [h, h + 1), UTC."""

    hour: datetime = Field(description="Its start.")
    over: bool = Field(description="Whether it has passed; otherwise its figures are up to `until` of the answer.")
    sites: tuple[SiteEnergyView, ...] = Field(description="In the order of the fleet file.")


class EnergyView(_View):
    """The energy books of whole hours in [since, until); the last one is cut at now when it is not over."""

    since: datetime = Field(description="From then on: a full hour.")
    until: datetime = Field(description="Up to then: a full hour, or now.")
    sites: tuple[SiteEnergyView, ...] = Field(description="All hours together, in the order of the fleet file.")
    hourly_matched_share: float | None = Field(
        description="Matched over metered energy of these sites; null: nothing was drawn, or it may not be seen.",
        examples=[0.41],
    )
    supply_source: str | None = Field(description="Where the capacity factors are from; null: it may not be seen.")
    supply_synthetic: bool = Field(description="Whether supply, and so what was matched, is by generated weather.")
    notes: tuple[str, ...] = Field(description="What a reader of the figures must know.")
    hours: tuple[HourEnergyView, ...] = Field(description="Each hour, oldest first; empty unless asked for.")


# --- people -----------------------------------------------------------------------------------------------------------


class GrantView(_View):
    """A role on a tenant and all below it."""

    role: Role = Field(description="The role.")
    tenant: str = Field(description="The tenant.", examples=["alpha"])


class UserView(_View):
    """An account."""

    name: str = Field(description="The account's name.", examples=["ada"])
    disabled: bool = Field(description="Whether it can do nothing.")
    grants: tuple[GrantView, ...] = Field(description="Its roles.")

    @classmethod
    def of(cls, name: str, disabled: bool, grants: Iterable[Grant]) -> Self:
        """The view of a stored account."""
        return cls(
            name=name,
            disabled=disabled,
            grants=tuple(GrantView(role=each.role, tenant=each.tenant) for each in grants),
        )


class UserChangedView(_View):
    """An account, and what its owner logs in with for the first time."""

    user: UserView = Field(description="The account.")
    one_time_token: str | None = Field(description="Shown only now: good for one `POST /login` within a week.")


class UsersView(_View):
    """Accounts that the caller may see."""

    users: tuple[UserView, ...] = Field(description="By name.")


class MeView(_View):
    """Who is asking, and what this token may do."""

    user: UserView = Field(description="The account.")
    scopes: tuple[Scope, ...] = Field(description="What the token may be used for: read, submit, admin.")
    token_expires_at: datetime | None = Field(description="When the token ends; null: never.")
    allowed: tuple[str, ...] = Field(description="Operations that account and token allow, somewhere at least.")


class TokenView(_View):
    """An API token without its secret."""

    id: int = Field(description="Its number.", examples=[3])
    label: str = Field(description="What its owner calls it.", examples=["laptop"])
    scopes: tuple[Scope, ...] = Field(description="read, submit, admin.", examples=[["read", "submit"]])
    one_time: bool = Field(description="Whether it is good for one login only.")
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="When it ends; null: never.")
    last_used_at: datetime | None = Field(description="When it was last used, to the minute.")
    revoked_at: datetime | None = Field(description="When it was revoked; null: it was not.")


class TokensView(_View):
    """The caller's tokens."""

    tokens: tuple[TokenView, ...] = Field(description="Newest first.")


class NewTokenView(_View):
    """A new API token."""

    token: str = Field(description="The secret, shown only now.", examples=["wt_" + "x" * 43])
    user: str = Field(description="Whose it is.", examples=["ada"])
    about: TokenView = Field(description="The token without its secret.")


class AuditView(_View):
    """One line of the append-only audit log."""

    seq: int = Field(description="Its place in the log.", examples=[12])
    at: datetime = Field(description="When.")
    user: str = Field(description="Who did it.", examples=["ada"])
    action: str = Field(description="What.", examples=["add_user"])
    target: str = Field(description="To what.", examples=["bob"])
    data: dict[str, Any] = Field(description="Its particulars.")


class AuditPageView(_View):
    """Some of the audit log, oldest first."""

    lines: tuple[AuditView, ...] = Field(description="The lines.")
    next_after: int | None = Field(description="Give it as `after` to go on; null: that was all so far.")


class OkView(_View):
    """It was done."""

    ok: bool = Field(True, description="Always true; errors are problem documents.")


class ReadyView(_View):
    """Whether this process can do its work."""

    ready: bool = Field(description="Whether requests are kept and decided.")
    store: str = Field(description="`ok`, or what is wrong with the database.", examples=["ok"])
    leading: bool = Field(description="Whether this process's controller leads; another one may.")
    compiled: bool = Field(description="Whether the decision core is compiled.")
    detail: str = Field("", description="What else there is to say.")


# --- bodies that come in ----------------------------------------------------------------------------------------------


class BulkBody(_Body):
    """Many submissions, kept all or none."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"jobs": [{"name": "a", "command": ["true"]}]}]},
    )

    jobs: tuple[Request, ...] = Field(
        min_length=1, max_length=MOST_BULK_JOBS, description="In the order in which they are answered."
    )


class SiteBody(_Body):
    """What holds at a site from now on, above the fleet file; all of it is said anew each time."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"mode": "drive", "fenced": True, "why": "the hall is under water"}]},
    )

    mode: Mode = Field(
        description="observe: look only; shadow: decide, too, and show it; drive: start and stop jobs.",
    )
    fenced: bool = Field(
        description="True: the site is gone. Its attempts count as lost and their jobs start elsewhere, whatever it "
        "would say."
    )
    why: str = Field(
        "",
        validate_default=True,
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Always wanted: it is kept in the audit log, and shown to whoever asks why nothing starts there.",
    )

    @field_validator("why")
    @classmethod
    def _says_something(cls, why: str) -> str:
        if not why.strip():
            raise ValueError("say why: it is kept in the audit log, and shown to whoever asks why nothing starts there")
        return why.strip()


class LoginBody(_Body):
    """Either a one-time token, or a user with a password."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"one_time_token": "wt_" + "x" * 43, "label": "laptop"},
                {"user": "ada", "password": "correct horse battery", "scopes": ["read", "submit"]},
            ]
        },
    )

    one_time_token: str | None = Field(None, max_length=128, description="As the server or a manager gave it.")
    user: str | None = Field(None, max_length=128, description="With a password.")
    password: str | None = Field(None, max_length=256, description="With a user.")
    label: Word = Field("login", description="What the new token is called.")
    scopes: tuple[Scope, ...] = Field((), max_length=3, description="Empty: everything that the account may do.")
    expires_in_s: int = Field(90 * 86_400, ge=60, le=10 * _YEAR_S, description="How long the new token is good.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.one_time_token is None) == (self.user is None) or (self.user is None) != (self.password is None):
            raise ValueError("give either a one_time_token, or user and password")
        return self


class TokenBody(_Body):
    """A token to be made for oneself."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"label": "ci", "scopes": ["read", "submit"], "expires_in_s": 86400}]},
    )

    label: Word = Field(description="What it is called.")
    scopes: tuple[Scope, ...] = Field(min_length=1, max_length=3, description="At most those of the token in use.")
    expires_in_s: int | None = Field(None, ge=60, le=10 * _YEAR_S, description="Null: it does not end by itself.")


class GrantBody(_Body):
    """A role on a tenant and all below it."""

    role: Role = Field(description="The role.")
    tenant: Word = Field(description="The tenant.")

    def grant(self) -> Grant:
        """The same as a domain value."""
        return Grant(self.role, TenantId(self.tenant))


class UserBody(_Body):
    """An account to be made. Without a password the answer holds a one-time token for its owner."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"name": "ada", "grants": [{"role": "member", "tenant": "alpha"}]}]},
    )

    name: UserName = Field(description="A letter or digit, then letters, digits and . _ @ -")
    password: Password | None = Field(None, description="10 to 256 characters.")
    grants: tuple[GrantBody, ...] = Field(min_length=1, max_length=100, description="Its roles; at least one.")


class UserChangeBody(_Body):
    """What to change of an account; what is left out stays. One's own: the password only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"disabled": True}, {"one_time_token": True}]},
    )

    password: Password | None = Field(None, description="A new one; it revokes the account's tokens.")
    disabled: bool | None = Field(None, description="True revokes the account's tokens too.")
    grants: tuple[GrantBody, ...] | None = Field(None, min_length=1, max_length=100, description="All its roles.")
    one_time_token: bool = Field(False, description="Make a one-time token for its owner, who has lost the way in.")

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.password is None and self.disabled is None and self.grants is None and not self.one_time_token:
            raise ValueError("there is nothing to change")
        return self
