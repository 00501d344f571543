"""Feeds a generated workload to the live system in accelerated time, for the demonstration."""

import threading
from collections.abc import Sequence

import numpy as np
import structlog

from watteau.core.state import cut_for_fleet
from watteau.domain.fleet import Fleet
from watteau.domain.jobs import Workload
from watteau.domain.people import User
from watteau.domain.requests import Priority, Request
from watteau.domain.units import HOUR_S, SiteId, TenantId
from watteau.runtime.clock import Clock
from watteau.store.store import Store, StoreUnavailable

_EVERY_S = 1.0
_MOST_AT_ONCE = 1_000
_MORNING_S = 8 * HOUR_S


class Feed:
    """Submits each job of a workload when its time has come, `speed` times as fast; runs and limits are as short.

    A job is `sleep SECONDS`, which a simulated engine takes as its run time. It begins on the workload's first morning,
    where there is something to see. When it falls behind, as after a pause of the machine, it leaves jobs out.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        sites: Sequence[SiteId],
        workload: Workload,
        user: User,
        clock: Clock,
        speed: float,
    ) -> None:
        self._store = store
        self._workload = workload
        self._shapes = cut_for_fleet(workload.shapes, fleet)
        self._tenants = [TenantId(name) for name in workload.tenants]
        self._sites = tuple(str(site) for site in sites)
        self._user = user
        self._clock = clock
        self._speed = speed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watteau-feed", daemon=True)

    def start(self) -> None:
        """Begin with the first job."""
        self._thread.start()

    def close(self) -> None:
        """Submit nothing more."""
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        zero_ms = self._clock.now_ms() - round(1000 * _MORNING_S / self._speed)
        fed = int(np.searchsorted(self._workload.submit_s, _MORNING_S))
        while not self._stop.wait(_EVERY_S) and fed < len(self._workload):
            now_ms = self._clock.now_ms()
            until_s = (now_ms - zero_ms) / 1000 * self._speed
            last = fed
            while last < len(self._workload) and self._workload.submit_s[last] <= until_s:
                last += 1
            first = max(fed, last - _MOST_AT_ONCE)
            try:
                asked = [self._request(row) for row in range(first, last)]
                if asked:
                    self._store.submit(asked, self._user, now_ms)
                fed = last
            except StoreUnavailable as gone:
                structlog.get_logger().warning("feed waits for the store", cause=str(gone))

    def _request(self, row: int) -> tuple[Request, TenantId]:
        its = self._workload
        shape = self._shapes[its.shape[row]]
        seconds = int(its.runtime_s[row]) / self._speed
        limit_s = int(its.limit_s[row]) / self._speed
        estimate_s = max(1, round(int(its.estimate_s[row]) / self._speed))
        return (
            Request(
                name=f"synthetic-{its.job_id[row]}",
                command=("sleep", f"{seconds:.3f}"),
                workers=shape.workers,
                gpu_milli=shape.gpu_milli,
                cpu_milli=shape.cpu_milli,
                memory_mib=shape.memory_mib,
                sites=self._sites,
                topology=shape.topology,
                priority=Priority.HIGH if its.priority_class[row] else Priority.NORMAL,
                time_limit_s=max(estimate_s, round(limit_s)) if limit_s else 0,
                estimate_s=estimate_s,
            ),
            self._tenants[its.tenant[row]],
        )
