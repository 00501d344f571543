"""Short words for what the store's tests submit and record."""

from collections.abc import Mapping, Sequence
from typing import Any

from watteau.domain.people import User
from watteau.domain.records import Ends, Intends, Place
from watteau.domain.requests import ArraySpec, JobId, Outcome, Request
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
