"""Short words for what the store's tests submit and record."""

from collections.abc import Mapping, Sequence
from typing import Any

from watteau.domain.people import User
from watteau.domain.records import Ends, Intends, Place
from watteau.domain.requests import ArraySpec, JobId, JobState, Outcome, Request
from watteau.domain.sites import Held, SiteJob
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import attempt_name
from watteau.store.store import Lease, Store

ADA = User(1, "ada", False, ())
BOB = User(2, "bob", False, ())
TEAM = TenantId("france/lumen/team")
OTHER = TenantId("france/orme")
HERE = SiteId("here")
PLACES = (Place(PoolId("h100"), 3, (0, 1)), Place(PoolId("h100"), 4, (), shared_gpu=2))


def request(**fields: Any) -> Request:
    return Request.model_validate({"command": ("python", "train.py"), "gpu_milli": 2_000, **fields})


def array(indices: Sequence[int], **fields: Any) -> Request:
    return request(array=ArraySpec(indices=tuple(indices)), **fields)


def submitted(store: Store, number: int = 1, tenant: TenantId = TEAM, user: User = ADA, **fields: Any) -> list[JobId]:
    """Ids of new jobs that are all alike."""
    return [job.job_id for job in store.submit([(request(**fields), tenant)] * number, user, 1_000)]


def leading(store: Store, holder: str = "one", now_ms: int = 1_000, ttl_ms: int = 60_000) -> Lease:
    lease = store.lead(holder, now_ms, ttl_ms)
    assert lease is not None
    return lease


def intends(job_id: JobId, number: int = 1, site: SiteId = HERE) -> Intends:
    return Intends(job_id, number, attempt_name(job_id, number), site, PLACES)


def ends(
    job_id: JobId,
    number: int = 1,
    outcome: Outcome = Outcome.COMPLETED,
    started_ms: int | None = 3_000,
    ended_ms: int = 5_000,
    exit_code: int | None = 0,
    cause: str = "",
    requeue: bool = False,
    used: Mapping[str, Any] | None = None,
) -> Ends:
    return Ends(job_id, number, outcome, started_ms, ended_ms, exit_code, None, cause, requeue, used or {})


def site_job(engine_id: str, submitted_ms: int = 1_000, state: JobState = JobState.WAITING, **fields: Any) -> SiteJob:
    """A job by hand: on one node with 4 GPUs and 8 cores as soon as it has started."""
    has_started = state not in (JobState.WAITING, JobState.HELD)
    usual: dict[str, Any] = {
        "site": HERE,
        "name": f"train {engine_id}",
        "user": "zoe",
        "account": "atelier",
        "tenant": TEAM,
        "partition": "normal",
        "reason": "" if has_started else "Priority",
        "tasks": 1,
        "workers": 1,
        "gpus": 4,
        "cpus": 8,
        "memory_mib": 1_024,
        "time_limit_s": 3_600,
        "priority": 7,
        "started_ms": 2_000 if has_started else None,
        "ended_ms": 5_000 if state.is_end else None,
        "held": (Held("gpu1", 4, 8, 1_024),) if has_started else (),
    }
    return SiteJob(engine_id=engine_id, submitted_ms=submitted_ms, state=state, **(usual | fields))
