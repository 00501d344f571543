"""A Slurm cluster in memory, with the habits and failures of a real one, and attempts that leave their marks.

Its scheduler is first come, first served on whole nodes' worth of CPUs. With `by_itself` jobs begin and end as time
goes by (`sleep SECONDS` takes that long); otherwise a test begins and ends them.
"""

import ast
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any, Literal

from watteau.domain.sites import Held, Partition, Reservation
from watteau.engines.contract import EngineUnreachable, LaunchRefused, NoAccounting
from watteau.engines.slurm import attempt
from watteau.engines.slurm.facts import InDoubt, Listing, Slurm, SlurmJob, SlurmNode, Submission

USER = "watteau"

#: What may befall a submission: never sent; sent and not answered, with and without effect; refused.
Fault = Literal["unreachable", "cut", "lost", "refused", "late"]


@dataclass
class _Run:
    """What a job of ours does while it runs."""

    submission: Submission
    what: dict[str, Any]  # what its batch script says
    begun_ms: int | None = None


def what_it_runs(script: str) -> dict[str, Any]:
    """What a batch script of ours says to the program that it is."""
    line = next(line for line in script.splitlines() if line.startswith("LAUNCH = "))
    said: dict[str, Any] = ast.literal_eval(line.removeprefix("LAUNCH = "))
    return said


@dataclass
class FakeSlurm(Slurm):
    """One cluster. Times are those of `now_ms`."""

    now_ms: Callable[[], int]
    by_itself: bool = False
    keeps_accounts: bool = False
    most_nodes: int = 2
    version: str = "Slurm in memory"
    can_name_nodes: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    silence: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    changed: list[str] = field(default_factory=list)  # every call that changes something
    asked: list[str] = field(default_factory=list)  # every call
    ran: list[str] = field(default_factory=list)  # names whose command was begun, in order
    node_states: dict[str, tuple[str, frozenset[str], str]] = field(default_factory=dict)
    kept: tuple[Reservation, ...] = ()

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._jobs: dict[int, SlurmJob] = {}
        self._runs: dict[int, _Run] = {}
        self._accounts: list[SlurmJob] = []
        self._late: list[Submission] = []
        self._next_id = 1
        self._changes = 0

    # ---- what a test does

    def put(self, job: SlurmJob) -> None:
        """Someone's job is there, as given."""
        with self._lock:
            self._set(job)
            self._next_id = max(self._next_id, job.job_id + 1)

    def of(self, name: str) -> SlurmJob:
        """The only job of that name."""
        with self._lock:
            (job,) = [job for job in self._jobs.values() if job.name == name]
            return job

    def all_of(self, name: str) -> list[SlurmJob]:
        """All jobs of that name."""
        with self._lock:
            return [job for job in self._jobs.values() if job.name == name]

    def begin(self, job_id: int) -> bool:
        """Start a waiting job; whether its command runs: another job, or another run, may have claimed it."""
        with self._lock:
            job, run = self._jobs[job_id], self._runs[job_id]
            nodes = tuple(f"n{number}" for number in range(run.submission.nodes))
            held = tuple(Held(node, job.gpus // len(nodes), job.cpus // len(nodes), 0) for node in nodes)
            job = replace(job, state="RUNNING", reason="", start_s=self._now_s(), nodes=nodes, held=held)
            claim = f"{run.what['folder']}/claim"
            if claim in self.files:
                self._set(replace(job, state="FAILED", exit_code=attempt.TAKEN, end_s=self._now_s()))
                return False
            self._mark(
                run, "claim", {"job": job_id, "restarts": job.restarts, "nodes": ",".join(nodes), "at_s": self._now_s()}
            )
            self._mark(run, "began", {"stdout": [run.what["stdout"], 0]})
            self.files[run.what["stdout"]] = b""
            self.ran.append(job.name)
            run.begun_ms = self.now_ms()
            self._set(job)
            return True

    def end(self, job_id: int, code: int | None = 0, signal: int | None = None, *, limited: bool = False) -> None:
        """The command of a running job ends."""
        with self._lock:
            job = self._jobs[job_id]
            self._mark_end(job_id, code, signal, limited)
            state = "COMPLETED" if code == 0 and not limited else "FAILED"
            self._set(replace(job, state=state, exit_code=code, signal=signal, end_s=self._now_s()))

    def end_as(self, job_id: int, state: str, *, signal: int | None = 15) -> None:
        """Slurm itself ends a job."""
        with self._lock:
            self._set(replace(self._jobs[job_id], state=state, signal=signal, end_s=self._now_s()))

    def end_unheard(self, job_id: int, code: int) -> None:
        """A command ends, and slurmctld is killed before it has written down that it heard so."""
        with self._lock:
            self._mark_end(job_id, code, None, False)

    def requeue(self, job_id: int) -> None:
        """Slurm ends a run, and the same job waits again."""
        with self._lock:
            job = self._jobs[job_id]
            again = replace(
                job, state="PENDING", reason="BeginTime", restarts=job.restarts + 1, start_s=None, nodes=(), held=()
            )
            self._set(again)

    def forget(self, job_id: int, *, ends: tuple[int | None, int | None] | None = None) -> None:
        """A slurmctld that was killed has no memory of a job, and gives its id to the next one.

        Its command, if it had begun, is ended by its node; or had ended as `ends` says.
        """
        with self._lock:
            if ends is not None:
                self._mark_end(job_id, *ends, False)
            del self._jobs[job_id]
            self._next_id = min(self._next_id, job_id)
            self._changes += 1

    def purge(self) -> None:
        """MinJobAge is over for all that has ended."""
        with self._lock:
            for job in [job for job in self._jobs.values() if job.end_s is not None]:
                self._accounts.append(job)
                del self._jobs[job.job_id]
            self._changes += 1

    def arrive(self) -> None:
        """Requests that were on their way arrive."""
        with self._lock:
            for submission in self._late:
                self._accept(submission)
            self._late.clear()

    # ---- the protocol

    def jobs(self, since: Listing | None = None) -> Listing | None:
        with self._call("jobs"):
            if since is not None and since.as_of_s == self._changes:
                return None
            return Listing(tuple(self._jobs.values()), self._changes)

    def job(self, job_id: int) -> SlurmJob | None:
        with self._call("job"):
            return self._jobs.get(job_id)

    def nodes(self) -> tuple[SlurmNode, ...]:
        with self._call("nodes"):
            return tuple(
                SlurmNode(
                    name=f"n{number}",
                    state=self.node_states.get(f"n{number}", ("IDLE", frozenset(), ""))[0],
                    flags=self.node_states.get(f"n{number}", ("", frozenset[str](), ""))[1],
                    reason=self.node_states.get(f"n{number}", ("", frozenset(), ""))[2],
                    cpus=64,
                    memory_mib=1 << 20,
                    gpus=(("", 8),),
                    features=("h100", "hall-1"),
                    partitions=("normal",),
                )
                for number in range(self.most_nodes)
            )

    def partitions(self) -> tuple[Partition, ...]:
        with self._call("partitions"):
            names = tuple(f"n{number}" for number in range(self.most_nodes))
            return (
                Partition("normal", True, True, names, 0, 0, 0, 1),
                Partition("short", False, True, names, 3_600, 0, 1, 1),
            )

    def reservations(self) -> tuple[Reservation, ...]:
        with self._call("reservations"):
            return self.kept

    def submit(self, submission: Submission) -> int:
        (answer,) = self.submit_all([submission])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_all(self, submissions: Sequence[Submission]) -> list[int | Exception]:
        with self._call("submit"):
            answers: list[int | Exception] = []
            for submission in submissions:
                self.changed.append(f"submit {submission.name}")
                answers.append(self._answer(submission))
            return answers

    def cancel(self, job_id: int) -> None:
        with self._call("cancel"):
            job = self._jobs.get(job_id)
            self.changed.append(f"cancel {job.name if job else job_id}")
            if job is None or job.end_s is not None:
                return
            if job.state == "RUNNING":
                self._mark_end(job_id, None, 15, False, asked=True)
            self._set(replace(job, state="CANCELLED", signal=15 if job.nodes else None, end_s=self._now_s()))

    def accounting(self, names: Sequence[str], since_s: int) -> list[SlurmJob]:
        with self._call("accounting"):
            if not self.keeps_accounts:
                raise NoAccounting("this cluster keeps none")
            return [job for job in self._accounts if job.name in names and job.submit_s >= since_s]

    def history(self, since_s: int, until_s: int) -> Iterator[SlurmJob]:
        with self._call("history"):
            if not self.keeps_accounts:
                raise NoAccounting("this cluster keeps none")
            return iter([job for job in self._accounts if since_s <= job.submit_s < until_s])

    def read_file(self, path: str, start: int, most: int) -> bytes:
        with self._call("read_file"):
            if path not in self.files:
                raise FileNotFoundError(path)
            return self.files[path][start : start + most]

    def close(self) -> None:
        pass

    # ---- inside

    def _call(self, what: str) -> RLock:
        with self._lock:
            self.asked.append(what)
            if self.silence:
                raise EngineUnreachable(self.silence)
            if self.by_itself:
                self._go_on()
        return self._lock

    def _answer(self, submission: Submission) -> int | Exception:
        fault = self.faults.popleft() if self.faults else None
        match fault:
            case "unreachable":
                return EngineUnreachable("slurmctld is down")
            case "lost":
                return InDoubt("no answer came")
            case "late":
                self._late.append(submission)
                return InDoubt("no answer came")
            case "refused":
                refused = self._record(submission, state="FAILED", reason="BadConstraints")
                self._set(replace(refused, end_s=self._now_s(), exit_code=1))
                return LaunchRefused("Slurm says: Requested node configuration is not available")
        job_id = self._accept(submission)
        return InDoubt("no answer came") if fault == "cut" else job_id

    def _accept(self, submission: Submission) -> int:
        job = self._record(submission, state="PENDING", reason="")
        self._set(job)
        what = what_it_runs(submission.script) if "\nLAUNCH = " in submission.script else {}
        self._runs[job.job_id] = _Run(submission, what)
        return job.job_id

    def _record(self, submission: Submission, state: str, reason: str) -> SlurmJob:
        job_id = self._next_id
        while job_id in self._jobs:
            job_id += 1
        self._next_id = job_id + 1
        return a_job(
            job_id,
            name=submission.name,
            user=USER,
            comment=submission.comment,
            state=state,
            reason=reason,
            submit_s=self._now_s(),
            time_limit_s=submission.time_limit_s,
            node_count=submission.nodes,
            gpus=submission.nodes * submission.gpus_per_node,
            cpus=submission.nodes * submission.cpus_per_node,
        )

    def _go_on(self) -> None:
        """What happens by itself as time goes by."""
        now_ms = self.now_ms()
        for job_id, job in list(self._jobs.items()):
            run = self._runs.get(job_id)
            if run is None or job.end_s is not None or not run.what:
                continue
            if job.state == "PENDING":
                self.begin(job_id)
            elif run.begun_ms is not None:
                takes_ms = 1000 * float(run.what["argv"][1])
                limit_ms = 1000 * run.what["time_limit_s"]
                if limit_ms and limit_ms < takes_ms and now_ms >= run.begun_ms + limit_ms:
                    self.end(job_id, None, 15, limited=True)
                elif now_ms >= run.begun_ms + takes_ms:
                    self.end(job_id)

    def _mark_end(
        self, job_id: int, code: int | None, signal: int | None, limited: bool, *, asked: bool = False
    ) -> None:
        how = {"exit_code": code} if signal is None else {"signal": signal}
        self._mark(
            self._runs[job_id],
            "ended",
            {"at_s": self._now_s(), "limited": limited, "asked": asked, "sizes": {"stdout": 0}, **how},
        )

    def _mark(self, run: _Run, name: str, content: dict[str, Any]) -> None:
        self.files[f"{run.what['folder']}/{name}"] = repr(content).encode()

    def _set(self, job: SlurmJob) -> None:
        self._jobs[job.job_id] = job
        self._changes += 1

    def _now_s(self) -> int:
        return self.now_ms() // 1000


def a_job(job_id: int, **changes: Any) -> SlurmJob:
    """A job that waits; anything may be said differently."""
    fields: dict[str, Any] = {
        "job_id": job_id,
        "array_job_id": 0,
        "array_task_id": None,
        "array_rest": "",
        "name": "hers",
        "user": "zoe",
        "account": "physics",
        "partition": "normal",
        "state": "PENDING",
        "flags": frozenset(),
        "reason": "Priority",
        "submit_s": 1_000,
        "eligible_s": None,
        "start_s": None,
        "end_s": None,
        "time_limit_s": 3_600,
        "priority": 1,
        "nodes": (),
        "node_count": 1,
        "gpus": 0,
        "cpus": 1,
        "memory_mib": 0,
        "held": (),
        "exit_code": None,
        "signal": None,
        "restarts": 0,
        "comment": "",
    }
    return SlurmJob(**(fields | changes))
