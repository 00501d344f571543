"""Runs attempts at a Slurm cluster that others use, too: each of them once, whatever is lost, cut or killed meanwhile.

An attempt is a Slurm job of its name, of our user, whose comment names our folder. One thread asks the cluster for all
jobs every few seconds and keeps a picture of it; calls answer from that picture. What an attempt is, is decided from
three witnesses, in this order: slurmctld, as long as it remembers; the marks on the shared storage (`marks.py`), which
the attempt leaves itself; the accounting.

Slurm has no idempotent submission, so it is made here, twice over:

- Before a submission its name is looked up. One that was sent and not answered is looked up anew, and sent again only
  when it is not there after a while.
- Should there be two jobs of a name all the same (a request that arrived very late; a slurmctld that was killed, forgot
  a job that runs, and was asked again): only the job that links the mark `claim` runs the command, ever. The other one
  is cancelled when it is seen, and does nothing if it starts first.

A slurmctld that is killed forgets the submissions of its last seconds and gives their ids to other jobs. So a job is
known by its name, never by its id alone: nothing is cancelled before the id is seen to have the name.
"""

import hashlib
import re
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from random import Random
from typing import TypeGuard

from watteau.domain.fleet import Site, SlurmAccess
from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import Partition, Reservation, SiteJob
from watteau.domain.tenants import Tenant
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import (
    Capabilities,
    EngineUnreachable,
    Launch,
    LaunchRefused,
    LogPart,
    NoAccounting,
    NodeCapacity,
    Observation,
    Seen,
    SiteView,
)
from watteau.engines.slurm import script, translate
from watteau.engines.slurm.facts import InDoubt, Listing, Slurm, SlurmJob, SlurmNode, Submission, TokenRefused
from watteau.engines.slurm.hosts import expand
from watteau.engines.slurm.marks import Claim, Marks, Output, folder_of

_PREFIX = "watteau-"
_COMMENT = re.compile(r"watteau ([0-9a-f]{8}) ([0-9x,]+)")
_MOST_STARTS = 64
#: A submission that was not answered may still be on its way for so long; a later one meets the claim.
_DOUBT_MS = 5_000
#: A node ends what slurmctld has forgotten as soon as it hears from it again.
_ORPHAN_MS = 30_000
#: Until a mark that was written elsewhere is seen here (NFS keeps that a file is missing for a while).
_MARK_MS = 4_000
#: What Slurm waits for is told of attempts that wait for at least so long.
_WAITS_MS = 3_000
#: After a submission or a stop we look soon, and then less and less often.
_FIRST_GLANCE_MS, _LAST_GLANCE_MS = 100, 10_000
_MOST_GLANCES = 8
_SHORT_POLL_MS = 2_000
_LONGEST_PAUSE_MS = 10_000
#: Of all the time, at most this part goes into asking one cluster for all jobs; less where ends are seen by marks, too.
_LISTING_SHARE, _LISTING_SHARE_NEAR = 0.25, 0.1
#: Marks are looked for this often, and so many jobs whose marks do not say all are then asked about one by one.
_MARKS_MS, _MARKS_SHARE, _MOST_ENDS = 150, 0.25, 32
#: What a mark says is news for so long. An older one was seen late, or its node has another clock: Slurm is asked.
_FRESH_MS = 5_000
_QUIET_FACTOR = 4
_NODES_EVERY, _LIMITS_EVERY = 5, 15  # polls
_SILENT_AFTER = 2
_TOMBSTONE_LOOKS = 50
_KEPT_ENDS = 5_000
_CLOSE_S = 5.0
_GONE_MS = 600_000
#: A slurmctld that is killed may forget that it was asked to cancel, too.
_CANCEL_AGAIN_MS = 10_000
_NFS_CACHE_MS = 60_000
_ACCOUNTING_S = 40 * 86_400
_SKEW_S = 60


def open_slurm(site: Site, tenants: Tenant, now_ms: Callable[[], int], owner: str = "") -> "SlurmEngine":
    """The engine of a site with a table [sites.slurm]. Raises ValueError without one.

    `owner`: whose attempts they are, by a name that no other Watteau has; empty for who only looks.
    """
    from watteau.engines.slurm.reach import reach

    if site.slurm is None:
        raise ValueError(f"site {site.id}: engine slurm wants a table [sites.slurm]")
    known = {tenant.id for _, tenant in tenants.walk()}
    by_account = dict(site.slurm.accounts)
    others = site.slurm.tenant

    def tenant_of(account: str) -> TenantId:
        found = by_account.get(account) or others or TenantId(account)
        return found if found in known else tenants.id

    return SlurmEngine(site.id, site.slurm, reach(site.slurm, now_ms), now_ms, tenant_of, owner)


@dataclass(slots=True)
class _Attempt:
    """An attempt whose changes are wanted."""

    name: str
    workers: tuple[int, ...]  # on each node, the largest first; empty: not known
    known_ms: int
    since_poll: int = 0  # polls that began later must show it
    job_id: int = 0  # Slurm's, of the job that counts; 0: not known
    told: Observation | None = None
    said_waits: str = ""
    claim: Claim | None = None  # who has it, where that was read
    asked: Outcome | None = None  # what its end is to be called
    doubt_ms: int | None = None  # sent then, and not answered
    missing_ms: int | None = None  # not in slurmctld's memory since then
    over_ms: int | None = None  # its job is over since then, and the mark of its end not there yet
    cancelled_ms: int = 0  # Slurm was last asked to end it then
    ahead_ms: int = 0  # its end was told then, before Slurm had heard of it
    shown_ms: int = 0  # its mark shows that it ended since then, and Slurm has not said so yet
    look_ms: int = 0  # not to be asked about before
    is_answered: bool = False  # what it is, is what `adopt` answers, and nobody else tells it

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.told is not None and self.told.seen is Seen.ENDED

    @property
    def is_starting(self) -> bool:
        """Whether Slurm has it and has not started it."""
        return self.told is not None and self.told.seen is Seen.STARTING


class SlurmEngine:
    """One cluster as a site that is shared with others. See the contract (`SharedEngine`).

    `tenant_of` says who pays for an account's jobs. Nothing is ever changed at the site until `may_change` is set; only
    jobs are submitted and cancelled there, and marks written in our own folder.
    """

    def __init__(
        self,
        site_id: SiteId,
        access: SlurmAccess,
        slurm: Slurm,
        now_ms: Callable[[], int],
        tenant_of: Callable[[str], TenantId],
        owner: str = "",
    ) -> None:
        self.may_change = False
        self._site_id = site_id
        self._access = access
        self._slurm = slurm
        self._now_ms = now_ms
        self._tenant_of = tenant_of
        self._marks = Marks(access, slurm)
        self._owner = owner
        self._owns = not owner  # whether the folder is known to be ours alone
        #: Two Watteaus may share an account as long as they have two folders: their attempts have the same names.
        self._token = hashlib.sha256(self._marks.base.encode()).hexdigest()[:8]
        self._random = Random(str(site_id))
        self.capabilities = Capabilities(
            keeps_logs=self._marks.readable,
            fractions=False,
            chooses_nodes=True,
            most_starts=_MOST_STARTS,
            notes=self._notes(),
        )
        self._acting = threading.RLock()  # one start or stop at a time
        self._polling = threading.RLock()  # one look at the cluster at a time; guards the next ones
        self._listing: Listing | None = None
        self._ours: dict[str, tuple[SlurmJob, ...]] = {}
        self._people: dict[tuple[str, int], tuple[SlurmJob, SiteJob]] = {}
        self._gone: dict[tuple[str, int], SiteJob] = {}  # ends that Slurm does not tell by itself
        self._outputs: dict[str, dict[str, Output]] = {}
        self._doubles: set[tuple[int, int]] = set()  # (id, submission) of jobs cancelled for another one of their name
        self._polls = 0
        self._listed = 0  # the last poll that had a list to show
        self._quiet = 0  # polls without news
        self._failures = 0  # in a row
        self._state = threading.Condition()  # guards all below; never held while the cluster is asked
        self._attempts: dict[str, _Attempt] = {}
        self._changes: deque[Observation] = deque()
        self._wakes: list[Callable[[], None]] = []
        self._nodes: tuple[SlurmNode, ...] = ()
        self._partitions: tuple[Partition, ...] = ()
        self._reservations: tuple[Reservation, ...] = ()
        self._capacity: tuple[NodeCapacity, ...] = ()
        self._shown_people: tuple[SiteJob, ...] = ()
        self._is_new = False  # there is something that `look` has not shown
        self._seen_once = False
        self._silent = ""
        self._glance_ms = 0  # how long to wait for the next glance; 0: none is wanted
        self._next_glance_ms = 0
        self._next_poll_ms = 0
        self._next_marks_ms = 0
        self._poll_takes_ms = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"watteau-slurm-{site_id}", daemon=True)
        self._thread.start()

    # ---- the contract: what is there

    def capacity(self) -> tuple[NodeCapacity, ...]:
        """The nodes as of the last poll; waits for the first one."""
        self._first_look()
        with self._state:
            self._check_voice()
            return self._capacity

    def look(self) -> SiteView | None:
        """The site as of the last poll, when it has changed since the last call."""
        with self._state:
            self._check_voice()
            if not self._is_new:
                return None
            self._is_new = False
            return SiteView(
                nodes=self._capacity,
                jobs=self._shown_people,
                partitions=self._partitions,
                reservations=self._reservations,
                version=self._slurm.version,
            )

    def changes(self) -> list[Observation]:
        """What changed since the last call, oldest first."""
        with self._state:
            self._check_voice()
            found = list(self._changes)
            self._changes.clear()
        return found

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` from now on whenever there is news; at once when there is some already."""
        with self._state:
            self._wakes.append(wake)
            waiting = bool(self._changes) or self._is_new
        if waiting:
            wake()

    def history(self, since_ms: int, until_ms: int) -> Iterator[SiteJob]:
        """Everybody's jobs in the accounting that were submitted then, our own attempts among them."""
        self._check_open()
        with _as_silence():
            for job in self._slurm.history(since_ms // 1000, -(-until_ms // 1000)):
                yield translate.by_hand(self._site_id, job, self._tenant_of)

    def leftovers(self, live: Collection[str]) -> list[str]:
        """Attempts that wait or run here and are not among these."""
        with self._polling:
            self._poll()
            return sorted(
                name
                for name, jobs in self._ours.items()
                if name not in live and any(not translate.is_over(job) for job in jobs)
            )

    # ---- the contract: attempts

    def start(self, launch: Launch) -> None:
        """Start an attempt once; see the contract."""
        for _, why in self.start_all([launch]):
            raise LaunchRefused(why)

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        """Start several attempts; returns (name, why) of those that are refused."""
        self._insist()
        self._first_look()
        with self._acting:
            self._clear_doubts([launch.name for launch in launches])
            refused, wanted = [], []
            for launch in launches:
                if self._is_known(launch.name):
                    continue
                try:
                    wanted.append((self._submission(launch), script.need_of(launch).workers))
                except LaunchRefused as why:
                    refused.append((launch.name, str(why)))
            return refused + self._submit(wanted)

    def stop(self, name: str, why: Outcome) -> None:
        """Ask an attempt to end, or see to it that it never begins; see the contract."""
        self._insist()
        self._first_look()
        with self._acting:
            self._clear_doubts([name])
            if not self._is_known(name):
                with self._polling:
                    self._poll()
                    (seen,) = self._adopt([name])
                if seen.seen is Seen.ABSENT:
                    self._never_begin(name, why)
                    return
            with self._state:
                its = self._attempts.get(name)
                if its is None:
                    raise EngineUnreachable(f"{name} left slurmctld's memory just now")  # and is looked for anew
                if its.has_ended:
                    return
                its.asked = why
            self._end(its, why)

    def adopt(self, names: Iterable[str]) -> list[Observation]:
        """One observation for each name."""
        self._check_open()
        wanted = list(names)
        if not wanted:
            return []
        self._first_look()
        with self._acting:
            self._clear_doubts(wanted)
            with self._polling:
                with self._state:
                    self._check_voice()
                    strangers = [name for name in wanted if name not in self._attempts]
                if any(name not in self._ours for name in strangers):
                    self._poll()  # it may have come since; or never
                return self._adopt(wanted, is_answered=True)

    def read_log(self, name: str, stream: str, start: int, most: int) -> LogPart:
        """A piece of what an attempt wrote, as its nodes see it."""
        self._check_open()
        if start < 0 or most < 0:
            raise ValueError("an offset or a length is below zero")
        if not self._marks.readable:
            raise FileNotFoundError(
                f"the output of {name} lies in {self._marks.base} at the site, which this machine does not see; "
                "name it as folder_here in [sites.slurm], where it is mounted"
            )
        with _as_silence():
            return self._read_log(name, stream, start, most)

    def close(self) -> None:
        """Let go of the thread and of connections. Attempts go on."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=_CLOSE_S)  # it may wait for an answer; that is of no use any more
        self._slurm.close()

    # ---- starting

    def _submission(self, launch: Launch) -> Submission:
        """What Slurm is to get. Raises LaunchRefused for what the cluster could never run."""
        need = script.need_of(launch)
        partition = launch.partition or self._access.partition
        with self._state:
            known = {node.name: node for node in self._nodes}
            limits = next(
                (its for its in self._partitions if (its.name == partition if partition else its.is_default)), None
            )
            partitions = sorted(its.name for its in self._partitions)
        missing = sorted({place.node for place in launch.places} - {"", *known})
        if missing:
            raise LaunchRefused(f"this site has no node {', '.join(missing)}")
        if limits is None and partition:
            raise LaunchRefused(f"this site has no partition {partition}; it has {', '.join(partitions)}")
        folder = folder_of(self._marks.base, launch.name)
        models = {translate.gpu_model(node) for node in known.values() if node.gpus}
        wanted = {translate.gpu_model(known[place.node]) for place in launch.places if place.node in known}
        gpu_type, constraint = "", ""
        if need.gpus and len(models) > 1 and len(wanted) == 1:
            (model,) = wanted
            typed = any(kind == model for node in known.values() for kind, _ in node.gpus)
            gpu_type, constraint = (model, "") if typed else ("", model)
        workers = ",".join(f"{count}x{len(list(same))}" for count, same in groupby(need.workers))
        return Submission(
            name=launch.name,
            script=script.batch_script(launch, folder),
            comment=f"watteau {self._token} {workers}: attempt {launch.number} of job {launch.job_id}",
            folder="/",
            stdout="/dev/null",
            stderr="",
            environment=script.ENVIRONMENT,
            nodes=need.nodes,
            cpus_per_node=need.cpus,
            gpus_per_node=need.gpus,
            gpu_type=gpu_type,
            constraint=constraint,
            memory_mib_per_node=need.memory_mib,
            time_limit_s=_site_limit_s(launch, limits, need.nodes),
            partition=partition,
            account=self._access.account,
            qos=self._access.qos,
            node_names=(),
            grace_s=launch.grace_s,
        )

    def _is_known(self, name: str) -> bool:
        """Whether the attempt was started here before, or is never to begin; from now on it is attended to."""
        with self._state:
            if name in self._attempts:
                return True
        # Not with `_polling`: a start does not wait for a look at the cluster, which may take seconds.
        if name not in self._ours and not (self._marks.near and self._claimed(name)):
            return False
        with self._polling:
            return self._adopt([name])[0].seen is not Seen.ABSENT

    def _claimed(self, name: str) -> bool:
        with _as_silence():
            return self._marks.claim(name) is not None

    def _submit(self, wanted: Sequence[tuple[Submission, tuple[int, ...]]]) -> list[tuple[str, str]]:
        """Send what was not sent before; returns what Slurm refuses. Raises EngineUnreachable for what is not there."""
        if not wanted:
            return []
        self._insist()
        now_ms = self._now_ms()
        with _as_silence():
            answers = self._slurm.submit_all([submission for submission, _ in wanted])
        refused: list[tuple[str, str]] = []
        silence: Exception | None = None
        with self._state:
            for (submission, workers), answer in zip(wanted, answers, strict=True):
                its = _Attempt(submission.name, workers, now_ms, since_poll=self._polls)
                match answer:
                    case int():
                        its.job_id = answer
                        its.told = Observation(its.name, Seen.STARTING)
                        self._attempts[its.name] = its
                    case LaunchRefused():
                        refused.append((its.name, str(answer)))
                    case InDoubt():
                        its.doubt_ms = self._now_ms()
                        self._attempts[its.name] = its
                        silence = silence or answer
                    case _:
                        silence = silence or answer
            self._look_soon()
        doubtful = [submission.name for submission, _ in wanted if self._is_in_doubt(submission.name)]
        if doubtful:
            with self._polling:
                self._poll()  # most often it is there, and only the answer was lost
        if isinstance(silence, InDoubt) and not any(self._is_in_doubt(name) for name in doubtful):
            return refused
        if silence is not None:
            raise EngineUnreachable(str(silence)) from silence
        return refused

    def _is_in_doubt(self, name: str) -> bool:
        with self._state:
            its = self._attempts.get(name)
            return its is not None and its.doubt_ms is not None

    def _clear_doubts(self, names: Sequence[str]) -> None:
        """Know of each of these whether Slurm has it: wait until its request is no longer on its way, and look."""
        with self._state:
            doubtful = [its for name in names if (its := self._attempts.get(name)) and its.doubt_ms is not None]
            if not doubtful:
                return
            last_ms = max(its.doubt_ms or 0 for its in doubtful) + _DOUBT_MS
            left_s = (last_ms - self._now_ms()) / 1000
            if left_s > 0 and self._state.wait_for(lambda: self._closed, min(left_s, _DOUBT_MS / 1000)):
                self._check_open()
        with self._polling:
            self._poll()
            with self._state:
                for its in doubtful:
                    if its.doubt_ms is not None:
                        self._attempts.pop(its.name, None)

    # ---- stopping

    def _end(self, its: _Attempt, why: Outcome) -> None:
        """Cancel what there is of an attempt, once what it is to be called is written down."""
        self._insist()
        if self._marks.near:
            with suppress(OSError):  # an account that may not write there: Slurm still says that it was cancelled
                self._marks.write_stop(its.name, why)
                if its.is_starting:
                    self._marks.stop_before(its.name, why, self._now_ms() // 1000)
        with self._polling, _as_silence():
            ids = {job.job_id for job in self._ours.get(its.name, ()) if not translate.is_over(job)}
            for job_id in sorted(ids | ({its.job_id} if its.job_id else set())):
                self._cancel(its, job_id)
        with self._state:
            self._look_soon()

    def _cancel(self, its: _Attempt, job_id: int) -> None:
        """Cancel a job, if it still is what we take it for, and has not been asked to end already."""
        its.cancelled_ms = self._now_ms()
        job = self._slurm.job(job_id)
        if job is None or not self._is_ours(job) or job.name != its.name:
            return
        if self.may_change and not translate.is_over(job) and "COMPLETING" not in (job.state, *job.flags):
            self._slurm.cancel(job_id)

    def _never_begin(self, name: str, why: Outcome) -> None:
        """Mark a name that nobody has so that a later start has no effect."""
        now_ms = self._now_ms()
        if self._marks.near:
            try:
                self._marks.stop_before(name, why, now_ms // 1000)
            except OSError as failed:
                self._submit_tombstone(name, failed.strerror or str(failed))
        else:
            self._submit_tombstone(name, "")
        ended = Observation(
            name, Seen.ENDED, ended_ms=now_ms, outcome=why, cause="It was stopped before it was started."
        )
        with self._state:
            its = _Attempt(name, (), now_ms, asked=why)
            self._attempts[name] = its
        self._tell(its, ended)

    def _submit_tombstone(self, name: str, why_not_written: str) -> None:
        """Where nothing can be written, a cancelled job of that name is what later looks find."""
        submission = Submission(
            name=name,
            script="#!/bin/sh\nexit 0\n",
            comment=f"watteau {self._token} 1x1: stopped before it was started",
            folder="/",
            stdout="/dev/null",
            stderr="",
            environment=script.ENVIRONMENT,
            nodes=1,
            cpus_per_node=1,
            gpus_per_node=0,
            gpu_type="",
            constraint="",
            memory_mib_per_node=0,
            time_limit_s=60,
            partition=self._access.partition,
            account=self._access.account,
            qos=self._access.qos,
            node_names=(),
            grace_s=0,
        )
        with _as_silence():
            try:
                job_id = self._slurm.submit(submission)
                self._slurm.cancel(job_id)
                for _ in range(_TOMBSTONE_LOOKS):  # Slurm may have begun it: whoever looks next must find its end
                    job = self._slurm.job(job_id)
                    if job is None or translate.is_over(job):
                        break
                    threading.Event().wait(0.1)
            except InDoubt as doubt:
                raise EngineUnreachable(str(doubt)) from doubt
            except LaunchRefused as refused:
                raise EngineUnreachable(
                    f"{name} cannot be marked as stopped: {why_not_written or 'the folder is not here'}; {refused}"
                ) from refused

    # ---- looking

    def _run(self) -> None:
        while True:
            with self._state:
                while not self._closed:
                    now_ms = self._now_ms()
                    due_ms = self._next_poll_ms
                    if self._glance_ms:
                        due_ms = min(due_ms, self._next_glance_ms)
                    if self._marks.near and self._attempts and not self._silent:
                        due_ms = min(due_ms, self._next_marks_ms)
                    if due_ms <= now_ms:
                        break
                    self._state.wait(min(_LONGEST_PAUSE_MS, due_ms - now_ms) / 1000)
                if self._closed:
                    return
                polls = self._next_poll_ms <= now_ms
                glances = self._glance_ms and self._next_glance_ms <= now_ms
            with suppress(EngineUnreachable):  # whoever asks is told so
                if polls:
                    self._poll()
                elif glances:
                    self._glance()
                else:
                    self._look_at_marks()

    def _look_soon(self) -> None:
        """Something was started or stopped: do not wait for the next poll. Called with `_state` held."""
        self._glance_ms = _FIRST_GLANCE_MS
        self._next_glance_ms = self._now_ms() + self._glance_ms
        self._state.notify_all()

    def _glance(self) -> None:
        """Look at the few attempts that were started or stopped just now; at everything when they are many.

        Where marks are near they show what was started, so that only what was stopped is asked about.
        """
        with self._state:
            now_ms = self._now_ms()
            young = [
                its
                for its in self._attempts.values()
                if its.job_id and not its.has_ended and (its.asked or (its.is_starting and not self._marks.near))
                if now_ms - its.known_ms < _LAST_GLANCE_MS or its.asked
            ]
            self._glance_ms = 3 * self._glance_ms // 2 if young and self._glance_ms < _LAST_GLANCE_MS else 0
            self._next_glance_ms = now_ms + self._glance_ms
            if len(young) > _MOST_GLANCES:
                self._next_poll_ms = min(self._next_poll_ms, self._next_glance_ms)
                self._glance_ms = 0
                return
            others_live = sum(not its.has_ended for its in self._attempts.values()) > len(young)
        with self._polling, _as_silence():
            for its in young:
                job = self._job_of(its)
                if job is None:
                    continue
                if others_live and its.is_starting and translate.runs(job) and self._poll_takes_ms < _SHORT_POLL_MS:
                    self._poll()  # it may stand where another one has just left: that is told first, then
                    return
                self._follow(its, (job,), is_listed=False)
        with self._state:  # behind a slow prefix each look takes its time
            self._glance_ms = self._glance_ms and max(self._glance_ms, 4 * (self._now_ms() - now_ms))
            self._next_glance_ms = self._now_ms() + self._glance_ms

    def _look_at_marks(self) -> None:
        """See by their marks which attempts have begun or ended. It takes microseconds, and Slurm is not asked.

        A mark is written before Slurm gives what its attempt held to another one. So ends are looked for last and told
        first: whatever made room for what has begun is told before it.
        """
        with self._state:
            began_ms = self._now_ms()
            live = [its for its in self._attempts.values() if its.job_id and not its.has_ended]
        begun = [its for its in live if its.is_starting and self._marks.shows_begin(its.name)]
        ended = [its for its in live if began_ms >= its.look_ms and self._marks.shows_end(its.name)]
        with self._state:  # over a slow NFS each look takes its time
            now_ms = self._now_ms()
            self._next_marks_ms = now_ms + max(_MARKS_MS, round((now_ms - began_ms) / _MARKS_SHARE))
        if begun or ended:
            with self._polling, _as_silence():
                unclear = [its for its in ended if not self._ends_by_marks(its)]
                for its in unclear[:_MOST_ENDS]:
                    its.shown_ms = its.shown_ms or began_ms
                    its.look_ms = began_ms + (began_ms - its.shown_ms) // 2  # Slurm may have forgotten that it heard so
                    if (job := self._job_of(its)) is not None:
                        self._follow(its, (job,), is_listed=False)
                for its in begun:
                    self._begins_by_marks(its)

    def _begins_by_marks(self, its: _Attempt) -> None:
        """Tell that an attempt has begun, if its mark says so beyond doubt."""
        claim = self._marks.claim(its.name)
        if _is_first_run(claim, its) and self._is_fresh(claim.at_s) and its.is_starting:
            its.claim = claim
            nodes = translate.for_workers(expand(claim.nodes), its.workers)
            self._tell(its, Observation(its.name, Seen.RUNNING, started_ms=1000 * claim.at_s, nodes=nodes))

    def _ends_by_marks(self, its: _Attempt) -> bool:
        """Tell that an attempt has ended well, if its marks say so beyond doubt; how others ended, Slurm knows better.

        Slurm itself hears of it some moments later, and keeps the nodes until then: what is started there meanwhile
        waits in its queue for so long.
        """
        if its.asked is not None or len(self._ours.get(its.name, ())) > 1:
            return False
        ended = self._marks.ended(its.name)
        if ended is None or ended.exit_code != 0 or ended.asked or ended.limited or not self._is_fresh(ended.at_s):
            return False
        claim = its.claim or self._marks.claim(its.name)
        if not _is_first_run(claim, its):
            return False
        seen = translate.by_marks(its.name, claim, ended, None, its.workers)
        its.ahead_ms = self._now_ms()
        self._tell(its, seen)
        return True

    def _is_fresh(self, at_s: int) -> bool:
        return -1_000 <= self._now_ms() - 1000 * at_s < _FRESH_MS

    def _job_of(self, its: _Attempt) -> SlurmJob | None:
        """An attempt's job as it is now; None: there is none by its id, or more than one of its name."""
        job = self._slurm.job(its.job_id)
        if job is None or not self._is_ours(job) or job.name != its.name or len(self._ours.get(its.name, ())) > 1:
            return None
        return job

    def _first_look(self) -> None:
        """See to it that there is a picture. A silent site is asked again by its own thread, in its own time."""
        with self._state:
            self._check_voice()
        if not self._seen_once:
            with self._polling:
                if not self._seen_once:
                    self._poll()

    def _poll(self) -> None:
        """Take a new picture of the cluster. Raises EngineUnreachable."""
        with self._polling:
            self._check_open()
            with self._state:
                self._polls += 1
            began_ms = self._now_ms()
            try:
                self._own_the_folder()
                with _as_silence():
                    listing = self._slurm.jobs(self._listing)
                    news = self._look_at_nodes()
                    news |= self._take(listing)
            except EngineUnreachable as silence:
                self._failed(str(silence))
                raise
            except Exception as failed:  # our own mistake must not end the site's thread, nor look like silence
                self._failed(f"what it says could not be understood: {failed!r}")
                raise EngineUnreachable(f"what the cluster says could not be understood: {failed!r}") from failed
            self._answered(began_ms, news)

    def _failed(self, cause: str) -> None:
        self._failures += 1
        with self._state:
            pause_ms = min(_LONGEST_PAUSE_MS, 1000 * self._access.poll_s * 2 ** min(self._failures, 10))
            if self._failures < _SILENT_AFTER:
                pause_ms = min(pause_ms, 500)
            self._next_poll_ms = self._now_ms() + self._jittered(pause_ms)
            self._glance_ms = 0
            is_news = not self._silent and (self._failures >= _SILENT_AFTER or not self._seen_once)
            if is_news:
                self._silent = cause or "it does not answer"
        if is_news:
            self._wake()

    def _answered(self, began_ms: int, news: bool) -> None:
        self._failures = 0
        self._quiet = 0 if news else self._quiet + 1
        with self._state:
            now_ms = self._now_ms()
            pause_ms = 1000 * self._access.poll_s
            if not any(not its.has_ended for its in self._attempts.values()):
                pause_ms = min(_LONGEST_PAUSE_MS, pause_ms * min(_QUIET_FACTOR, 1 + self._quiet // 3))
            self._poll_takes_ms = now_ms - began_ms
            share = _LISTING_SHARE_NEAR if self._marks.near else _LISTING_SHARE
            pause_ms = max(pause_ms, self._poll_takes_ms * (1 / share - 1))
            self._next_poll_ms = now_ms + self._jittered(pause_ms)
            was_silent, self._silent, self._seen_once = self._silent, "", True
            told = bool(self._changes) or self._is_new
        if told or was_silent:
            self._wake()

    def _jittered(self, pause_ms: float) -> int:
        return round(pause_ms * self._random.uniform(0.85, 1.15))

    def _look_at_nodes(self) -> bool:
        """Nodes change less often than jobs, and limits seldom."""
        first = not self._seen_once
        nodes = self._slurm.nodes() if first or self._polls % _NODES_EVERY == 0 else self._nodes
        partitions, reservations = self._partitions, self._reservations
        if first or self._polls % _LIMITS_EVERY == 0:
            partitions, reservations = self._slurm.partitions(), self._slurm.reservations()
        ours = (self._access.user, self._access.account)
        capacity = translate.capacities(nodes, reservations, ours, self._now_ms() // 1000)
        with self._state:
            news = (capacity, partitions, reservations) != (self._capacity, self._partitions, self._reservations)
            self._nodes, self._partitions, self._reservations = nodes, partitions, reservations
            if news:
                self._capacity = capacity
            self._is_new |= news
        return news

    def _take(self, listing: Listing | None) -> bool:
        """Sort a new listing into our attempts and other people's jobs, and see what became of both."""
        news = False
        if listing is not None:
            self._listing, self._listed = listing, self._polls
            ours: dict[str, tuple[SlurmJob, ...]] = {}
            people: list[SlurmJob] = []
            for job in listing.jobs:
                if not self._is_ours(job):
                    people.append(job)
                elif not translate.was_refused(job) and not self._was_double(job):
                    ours[job.name] = (*ours.get(job.name, ()), job)
            self._ours = ours
            news = self._take_people(people)
        with self._state:
            attended = [its for its in self._attempts.values() if not its.has_ended]
        # Ends first: what runs now may stand where others have just left.
        attended.sort(key=lambda its: not any(translate.is_over(job) for job in self._ours.get(its.name, ())))
        missing = [its for its in attended if not self._follow(its, self._ours.get(its.name, ()), is_listed=True)]
        self._settle_missing([its for its in missing if self._is_missing(its)])
        self._cancel_strays()
        return news

    def _was_double(self, job: SlurmJob) -> bool:
        """Whether it was cancelled for another one of its name: that says nothing of the attempt."""
        return (job.job_id, job.submit_s) in self._doubles and translate.is_over(job)

    def _is_ours(self, job: SlurmJob) -> bool:
        if not job.name.startswith(_PREFIX) or job.user != self._access.user:
            return False
        said = _COMMENT.match(job.comment)
        return said is not None and said[1] == self._token

    # ---- what became of an attempt

    def _adopt(self, names: Sequence[str], *, is_answered: bool = False) -> list[Observation]:
        """Called with `_polling` held, and a picture that would show them.

        What is found is told by `changes` as well, unless whoever asked for it gets it as the answer.
        """
        now_ms = self._now_ms()
        strangers = []
        with self._state:
            for name in names:
                if name not in self._attempts:
                    self._attempts[name] = _Attempt(name, (), now_ms, is_answered=is_answered)
                    strangers.append(self._attempts[name])
        with _as_silence():
            missing = [its for its in strangers if not self._follow(its, self._ours.get(its.name, ()), is_listed=True)]
            self._settle_missing(missing)
        with self._state:
            return [
                its.told if (its := self._attempts.get(name)) and its.told else Observation(name, Seen.ABSENT)
                for name in names
            ]

    def _follow(self, its: _Attempt, jobs: tuple[SlurmJob, ...], *, is_listed: bool) -> bool:
        """See what became of an attempt; False: slurmctld has no job of its name."""
        if not jobs:
            return False
        job = self._that_counts(its, jobs)
        its.job_id, its.doubt_ms, its.missing_ms = job.job_id, None, None
        its.workers = its.workers or _workers(job)
        if its.asked is not None and self.may_change and self._now_ms() - its.cancelled_ms > _CANCEL_AGAIN_MS:
            self._cancel(its, job.job_id)
        if translate.is_over(job):
            self._follow_over(its, job)
        elif translate.runs(job):
            if is_listed and self._ended_unnoticed(its, job):
                return True
            seen = self._as_marked(its, job, translate.not_over(its.name, job, its.workers))
            if self._is_about_to_begin(its, job, seen):
                seen = Observation(its.name, Seen.STARTING)
                is_listed = False
            self._tell(its, seen, is_glance=not is_listed)
        elif not self._began_before(its, job):
            self._tell(its, translate.not_over(its.name, job, its.workers), is_glance=not is_listed)
        return True

    def _as_marked(self, its: _Attempt, job: SlurmJob, seen: Observation) -> Observation:
        """With the start that its claim says, where marks are near: whoever asks, and whenever, hears of the same one.

        A claim of before the job, or of a time to come, is of a node with another clock.
        """
        if not self._marks.near or seen.started_ms is None:
            return seen
        its.claim = its.claim or self._marks.claim(its.name)
        if (
            not _is_first_run(its.claim, its)
            or not (job.start_s or 0) - 1 <= its.claim.at_s <= self._now_ms() // 1000 + 1
        ):
            return seen
        started_ms = 1000 * its.claim.at_s
        ended_ms = None if seen.ended_ms is None else max(seen.ended_ms, started_ms)
        return replace(seen, started_ms=started_ms, ended_ms=ended_ms)

    def _is_about_to_begin(self, its: _Attempt, job: SlurmJob, seen: Observation) -> bool:
        """Whether Slurm has just given it nodes, and its mark will be here in a moment."""
        is_told = its.told is not None and its.told.seen is Seen.RUNNING
        is_young = job.start_s is not None and self._now_ms() - 1000 * job.start_s < _MARK_MS
        return self._marks.near and seen.seen is Seen.RUNNING and its.claim is None and is_young and not is_told

    def _ended_unnoticed(self, its: _Attempt, job: SlurmJob) -> bool:
        """Whether the command ended a while ago, and Slurm does not know: killed, it forgets that it heard so.

        Slurm finds out after some minutes, and calls it NODE_FAIL. What is left of the job is cancelled as a stray.
        """
        if not self._marks.near or self._polls % _LIMITS_EVERY or "COMPLETING" in (job.state, *job.flags):
            return False
        ended = self._marks.ended(its.name)
        if ended is None or ended.asked or self._now_ms() - 1000 * ended.at_s < _ORPHAN_MS:
            return False
        claim = self._marks.claim(its.name)
        if claim is None:
            return False
        self._tell(its, translate.by_marks(its.name, claim, ended, its.asked, its.workers))
        return True

    def _that_counts(self, its: _Attempt, jobs: tuple[SlurmJob, ...]) -> SlurmJob:
        """Of several jobs of one name: whoever has claimed it, else the first one. The others are cancelled."""
        if len(jobs) == 1:
            return jobs[0]
        claim = self._marks.claim(its.name)
        counts = min(jobs, key=lambda job: (claim is None or job.job_id != claim.job_id, job.job_id))
        for job in jobs:
            if job is not counts and not translate.is_over(job) and self.may_change:
                self._doubles.add((job.job_id, job.submit_s))
                self._cancel(its, job.job_id)
        return counts

    def _began_before(self, its: _Attempt, job: SlurmJob) -> bool:
        """Whether a job that waits has run before: requeued, or put back by a slurmctld that lost some seconds.

        It does nothing when it is started again: what its only run came to is its end.
        """
        did_run = its.told is not None and its.told.seen is Seen.RUNNING
        if not did_run and not job.restarts:
            return False
        claim = self._marks.claim(its.name)
        if claim is None and not did_run:
            return False
        ended = self._marks.ended(its.name)
        now_ms = self._now_ms()
        its.over_ms = its.over_ms or now_ms
        if ended is None and not job.restarts and now_ms - its.over_ms < _ORPHAN_MS:
            self._still_runs(its, claim, job)  # on its node, until slurmctld tells that to stop
            return True
        if self.may_change:
            self._cancel(its, job.job_id)
        if claim is not None and ended is not None:
            self._tell(its, translate.by_marks(its.name, claim, ended, its.asked, its.workers))
            return True
        began_ms = None if claim is None else 1000 * claim.at_s
        cause = f"Slurm ended its run and put it back into its queue ({job.reason or 'requeued'})."
        started_ms = its.told.started_ms if its.told and its.told.started_ms else began_ms
        nodes = its.told.nodes if its.told else ()
        self._tell(
            its,
            Observation(its.name, Seen.ENDED, started_ms, now_ms, its.asked or Outcome.LOST, cause=cause, nodes=nodes),
        )
        return True

    def _still_runs(self, its: _Attempt, claim: Claim | None, job: SlurmJob) -> None:
        """What is said of an attempt that has begun, until it is known what became of it."""
        if its.told is None or its.told.seen is not Seen.RUNNING:
            began_s = claim.at_s if claim is not None else job.start_s
            started_ms = None if began_s is None else 1000 * began_s
            nodes = translate.for_workers(job.nodes, its.workers)
            self._tell(its, Observation(its.name, Seen.RUNNING, started_ms=started_ms, nodes=nodes))

    def _follow_over(self, its: _Attempt, job: SlurmJob) -> None:
        claim = ended = None
        if self._marks.near or job.state != "COMPLETED":
            ended = self._marks.ended(its.name)
            if ended is None and job.state != "COMPLETED":
                claim = self._marks.claim(its.name)
        asked = its.asked or self._marks.stop(its.name)
        may_come = job.state == "FAILED" and job.signal != translate.COULD_NOT_START
        may_come |= job.state == "CANCELLED" and bool(job.nodes) and claim is None and asked is None
        if may_come and ended is None and self._marks.readable:
            # It left no mark of its end: it is not seen here yet, or another run that has not ended has the claim.
            now_ms = self._now_ms()
            its.over_ms = its.over_ms or now_ms
            is_another = claim is not None and claim.job_id != job.job_id and claim.stopped is None
            if now_ms - its.over_ms < (_ORPHAN_MS if is_another else _MARK_MS):
                self._still_runs(its, claim, job)
                return
        seen = translate.over(its.name, job, its.workers, asked, claim, ended)
        seen = self._as_marked(its, job, seen)
        if may_come and self._marks.readable and claim is None and ended is None:
            seen = translate.never_began(seen, job, self._marks.base)
        self._tell(its, seen)

    def _is_missing(self, its: _Attempt) -> bool:
        """Whether the last listing must have shown it, and did not."""
        return its.doubt_ms is None and its.since_poll < self._listed and not its.has_ended

    def _settle_missing(self, missing: Sequence[_Attempt]) -> None:
        """Attempts that slurmctld does not know (any more): the marks say what became of them, or the accounting."""
        unsettled = [its for its in missing if not self._settle_by_marks(its, is_last=False)]
        if not unsettled:
            return
        kept = self._accounted(unsettled)
        now_ms = self._now_ms()
        for its in unsettled:
            job = kept.get(its.name)
            if job is not None and translate.is_over(job) and not translate.was_refused(job):
                its.workers = its.workers or _workers(job)
                asked = its.asked or self._marks.stop(its.name)
                self._tell(its, translate.over(its.name, job, its.workers, asked, None, None))
            elif self._settle_by_marks(its, is_last=True):
                continue
            elif its.told is None or its.told.seen is not Seen.RUNNING:
                self._tell(its, Observation(its.name, Seen.ABSENT))
            else:  # its node may run it still, and ends it as soon as it hears that slurmctld knows nothing of it
                its.missing_ms = its.missing_ms or now_ms
                if now_ms - its.missing_ms >= _ORPHAN_MS:
                    self._lose(its)

    def _settle_by_marks(self, its: _Attempt, *, is_last: bool) -> bool:
        """Whether the marks say how it ended. Why Slurm ended it, the accounting knows better."""
        claim = self._marks.claim(its.name)
        if claim is None:
            return False
        if claim.stopped is not None:
            cause = "It was stopped before it began."
            self._tell(
                its,
                Observation(its.name, Seen.ENDED, ended_ms=1000 * claim.at_s, outcome=claim.stopped, cause=cause),
            )
            return True
        if (ended := self._marks.ended(its.name)) is not None:
            asked = its.asked or self._marks.stop(its.name)
            if ended.asked and asked is None and not is_last:
                return False
            self._tell(its, translate.by_marks(its.name, claim, ended, asked, its.workers))
            return True
        if its.told is None or its.told.seen is not Seen.RUNNING:
            nodes = translate.for_workers(expand(claim.nodes), its.workers)
            self._tell(its, Observation(its.name, Seen.RUNNING, started_ms=1000 * claim.at_s, nodes=nodes))
        return False

    def _lose(self, its: _Attempt) -> None:
        assert its.told is not None
        self._tell(
            its,
            replace(
                its.told,
                seen=Seen.ENDED,
                ended_ms=self._now_ms(),
                outcome=its.asked or Outcome.LOST,
                cause="Slurm has forgotten it, and it left no mark of its end.",
            ),
        )

    def _accounted(self, attempts: Sequence[_Attempt]) -> dict[str, SlurmJob]:
        """What the accounting has last of each attempt."""
        by_name = {its.name: its for its in attempts}
        try:
            found = self._slurm.accounting(list(by_name), max(0, self._now_ms() // 1000 - _ACCOUNTING_S))
        except NoAccounting:
            return {}
        found.sort(key=lambda job: (job.submit_s, job.job_id))
        return {job.name: job for job in found if job.name in by_name and self._is_accounted(by_name[job.name], job)}

    def _is_accounted(self, its: _Attempt, job: SlurmJob) -> bool:
        """Whether it is this attempt: by its comment, which most sites' accounting does not keep; else by its claim.

        Names alone would not do: another Watteau of this account has the same ones, and so had an earlier life of ours.
        """
        if said := _COMMENT.match(job.comment):
            return said[1] == self._token
        if claim := self._marks.claim(its.name):
            return claim.job_id == job.job_id and job.submit_s <= claim.at_s
        return its.since_poll > 0 and job.submit_s >= its.known_ms // 1000 - _SKEW_S

    def _cancel_strays(self) -> None:
        """Jobs of a name that has ended: a submission that arrived after all, or an end that Slurm did not hear of."""
        if not self.may_change:
            return
        now_ms = self._now_ms()
        for name, jobs in self._ours.items():
            with self._state:
                its = self._attempts.get(name)
            if its is None or not its.has_ended:
                continue
            for job in jobs:
                is_ending = job.job_id == its.job_id and now_ms - its.ahead_ms < _ORPHAN_MS
                if not is_ending and not translate.is_over(job):
                    self._cancel(its, job.job_id)

    def _tell(self, its: _Attempt, seen: Observation, *, is_glance: bool = False) -> None:
        """Remember what an attempt does, and let `changes` say it, unless it is what whoever asked is told anyway."""
        with self._state:
            before, its.told = its.told, seen
            if seen.seen is Seen.ABSENT:
                self._attempts.pop(its.name, None)
            if seen.seen is Seen.ENDED:
                self._forget_old_ends()
            if before is None and (its.is_answered or seen.seen in (Seen.STARTING, Seen.ABSENT)):
                return
            if seen.seen is Seen.STARTING:
                waits_long = self._now_ms() - its.known_ms >= _WAITS_MS
                if is_glance or not waits_long or seen.waits_for == its.said_waits:
                    return
                its.said_waits = seen.waits_for
            elif before == seen:
                return
            has_run = before is not None and before.seen is Seen.RUNNING
            if seen.seen is Seen.ENDED and seen.started_ms is not None and not has_run:
                self._changes.append(Observation(seen.name, Seen.RUNNING, started_ms=seen.started_ms, nodes=seen.nodes))
            self._changes.append(seen)
        self._wake()

    def _forget_old_ends(self) -> None:
        if len(self._attempts) <= _KEPT_ENDS:
            return
        ended = [name for name, its in self._attempts.items() if its.has_ended]
        for name in ended[: max(0, len(ended) - _KEPT_ENDS)]:
            del self._attempts[name]

    # ---- other people's jobs

    def _take_people(self, jobs: Sequence[SlurmJob]) -> bool:
        """Keep what did not change as it is; returns whether anything did."""
        before, now = self._people, {}
        news = False
        for job in jobs:
            key = (translate.site_id_of(job), job.submit_s)
            known = before.get(key)
            if known is None or known[0] != job:
                known = (job, translate.by_hand(self._site_id, job, self._tenant_of))
                news = True
            now[key] = known
        oldest_ms = self._now_ms() - _GONE_MS
        gone = self._gone | self._ends_of_the_gone(before, now)
        self._gone = {key: job for key, job in gone.items() if key not in now and (job.ended_ms or 0) >= oldest_ms}
        self._people = now
        if news or len(now) != len(before):
            with self._state:
                self._shown_people = (*(job for _, job in now.values()), *self._gone.values())
                self._is_new = True
            return True
        return False

    def _ends_of_the_gone(
        self,
        before: dict[tuple[str, int], tuple[SlurmJob, SiteJob]],
        now: dict[tuple[str, int], tuple[SlurmJob, SiteJob]],
    ) -> dict[tuple[str, int], SiteJob]:
        """What left the list without an end of its own: the rest of an array whose tasks began, or a requeued job."""
        gone = [key for key, (_, job) in before.items() if key not in now and not job.state.is_end]
        if not gone:
            return {}
        ids = {engine_id for engine_id, _ in now}
        arrays = {job.array_job_id for job, _ in now.values() if job.array_job_id}
        ends = {}
        now_ms = self._now_ms()
        for key in gone:
            job, known = before[key]
            if job.array_rest and job.array_job_id in arrays:
                cause = "All of its tasks are listed by themselves now."
                ends[key] = replace(
                    known, state=JobState.COMPLETED, tasks=0, reason="", ended_ms=now_ms, cause=cause, held=()
                )
            elif key[0] in ids:
                cause = "Slurm ended its run and put it back into its queue, as submitted anew."
                ends[key] = replace(known, state=JobState.CANCELLED, reason="", ended_ms=now_ms, cause=cause)
        return ends

    # ---- logs

    def _read_log(self, name: str, stream: str, start: int, most: int) -> LogPart:
        with self._state:
            its = self._attempts.get(name)
            told = its.told if its else None
        jobs = self._ours.get(name, ())
        is_over = told.seen is Seen.ENDED if told else all(translate.is_over(job) for job in jobs)
        outputs = self._outputs.get(name) or self._marks.outputs(name)
        if outputs is None:
            if stream != "stdout" or (told is None and not jobs and self._marks.claim(name) is None):
                raise FileNotFoundError(f"{name} has no {stream}")
            return LogPart(b"", start, is_over)  # it has not begun; or never did
        if len(self._outputs) > _KEPT_ENDS:
            self._outputs.clear()
        self._outputs[name] = outputs
        if stream not in outputs:
            raise FileNotFoundError(f"{name} has no {stream} of its own")
        path, base = outputs[stream].path, outputs[stream].base
        if base < 0:  # a pipe or a device: what went there is not kept
            return LogPart(b"", start, is_over)
        ended = self._marks.ended(name) if is_over else None
        content = self._slurm.read_file(path, base + start, most)
        end = start + len(content)
        size = ended.sizes.get(stream) if ended else None
        complete = is_over and (base + end >= size if size is not None else len(content) < most)
        if is_over and not complete and not content and ended is not None:
            # The file was cut since; or this machine does not see all of it yet.
            complete = self._now_ms() - 1000 * ended.at_s > _NFS_CACHE_MS
        return LogPart(content, end, complete)

    # ---- small things

    def _notes(self) -> tuple[str, ...]:
        how = self._access.rest_url or " ".join([*self._access.command_prefix, "sbatch"])
        notes = [f"Slurm by {how}, as {self._access.user}"]
        if not self._marks.readable:
            notes.append("output is not shown: folder_here is not set")
        return tuple(notes)

    def _insist(self) -> None:
        self._check_open()
        if not self.may_change:
            raise EngineUnreachable("nothing is changed at this site: Watteau does not drive it")
        self._own_the_folder()

    def _own_the_folder(self) -> None:
        """See to it that no other Watteau's attempts, which have the same names, leave their marks among ours.

        Where the folder is not seen from here, or cannot be written, whoever set it up answers for that.
        """
        if self._owns or not self.may_change or not self._marks.near:
            return
        try:
            owner = self._marks.own(self._owner)
        except OSError:
            return
        if owner != self._owner:
            raise EngineUnreachable(
                f"{self._marks.base} is the folder of another Watteau, with a database of its own: give this one "
                f"another folder in [sites.slurm]; or, if that one is gone for good, remove the file `owner` there"
            )
        self._owns = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnreachable("this engine was closed")

    def _check_voice(self) -> None:
        self._check_open()
        if self._silent:
            raise EngineUnreachable(self._silent)

    def _wake(self) -> None:
        with self._state:
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()


@contextmanager
def _as_silence() -> Iterator[None]:
    """A refused token is told as a site that does not answer, with the cause."""
    try:
        yield
    except TokenRefused as refused:
        raise EngineUnreachable(str(refused)) from refused


def _is_first_run(claim: Claim | None, its: _Attempt) -> TypeGuard[Claim]:
    """Whether the job that we know of claimed the attempt, in its first run."""
    return claim is not None and claim.stopped is None and (claim.job_id, claim.restarts) == (its.job_id, 0)


def _workers(job: SlurmJob) -> tuple[int, ...]:
    """How many workers are on each node, as the comment of an attempt's job says: 2x3,1x1 is 2, 2, 2, 1."""
    said = _COMMENT.match(job.comment)
    parts = [part.split("x") for part in said[2].split(",")] if said else []
    return tuple(int(count) for count, nodes in parts for _ in range(int(nodes)))


def _site_limit_s(launch: Launch, limits: Partition | None, nodes: int) -> int:
    """The limit that Slurm keeps behind ours, which is exact to the second. Raises LaunchRefused where none fits."""
    if limits is None:
        return launch.time_limit_s and launch.time_limit_s + launch.grace_s + 60
    if limits.most_time_s and launch.time_limit_s > limits.most_time_s:
        raise LaunchRefused(
            f"partition {limits.name} allows {limits.most_time_s} s, and the time limit is {launch.time_limit_s} s"
        )
    if limits.most_nodes and nodes > limits.most_nodes:
        raise LaunchRefused(
            f"partition {limits.name} allows {limits.most_nodes} nodes for a job, and this needs {nodes}"
        )
    if nodes < limits.least_nodes:
        raise LaunchRefused(
            f"partition {limits.name} wants {limits.least_nodes} nodes of a job, and this needs {nodes}"
        )
    if not launch.time_limit_s:
        return 0
    wanted_s = launch.time_limit_s + launch.grace_s + 60
    return min(wanted_s, limits.most_time_s) if limits.most_time_s else wanted_s
