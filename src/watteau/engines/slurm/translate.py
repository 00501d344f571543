"""Slurm's words and ours: what its jobs, nodes and reservations are to Watteau. Pure functions."""

import re
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import NodeState, Reservation, SiteJob
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import NodeCapacity, Observation, Seen
from watteau.engines.slurm import attempt
from watteau.engines.slurm.facts import SlurmJob, SlurmNode
from watteau.engines.slurm.hosts import expand
from watteau.engines.slurm.marks import Claim, Ended

#: States in which a job holds its nodes.
_RUNS = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
_WAITS = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
_HELD_REASONS = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})
_NOT_THERE = frozenset({"DOWN", "ERROR", "UNKNOWN", "FUTURE", "NON_RESPONDING"})
_NOT_THERE_FLAGS = frozenset({"NOT_RESPONDING", "INVALID_REG", "POWERING_DOWN", "REBOOT_ISSUED", "REBOOT_REQUESTED"})
_DRAIN_FLAGS = frozenset({"DRAIN", "FAIL", "DRAINING", "DRAINED"})

#: So much may the clocks of a site's machines be apart, whole seconds included.
_CLOCKS_S = 2
_NODE_LOST = frozenset({"NODE_FAIL", "BOOT_FAIL"})

#: Slurm's own way of saying that it could not start a job (0:53).
COULD_NOT_START = 53

#: GPU models as sites name features after them.
_MODEL = re.compile(
    r"(?i)(nvidia_|amd_)?(k80|[pv]100\w*|p40|t4|a(2|10|16|30|40|100|800)\w*|l(4|20|40s?)|h(20|100|200|800)\w*"
    r"|gh200\w*|b(100|200|300)\w*|gb(200|300)\w*|rtx\w+|mi\d{2,3}\w*|gaudi\w*)"
)


# ---- attempts ------------------------------------------------------------------------------------------------------


def is_over(job: SlurmJob) -> bool:
    """Whether nothing of the job is left on its nodes."""
    return job.state not in _RUNS and job.state not in _WAITS and "COMPLETING" not in job.flags


def runs(job: SlurmJob) -> bool:
    """Whether it holds nodes."""
    return not is_over(job) and (job.state not in _WAITS or "COMPLETING" in job.flags)


def was_refused(job: SlurmJob) -> bool:
    """Whether it is only the record that a refused submission leaves."""
    return job.state == "FAILED" and job.reason == "BadConstraints"


def not_over(name: str, job: SlurmJob, workers: Sequence[int]) -> Observation:
    """What an attempt does that has not ended."""
    are_booting = "CONFIGURING" in (job.state, *job.flags)
    if runs(job) and not are_booting:
        return Observation(name, Seen.RUNNING, started_ms=_ms(job.start_s), nodes=for_workers(job.nodes, workers))
    word = "its nodes are being started" if are_booting else job.reason
    return Observation(name, Seen.STARTING, waits_for=f"Slurm: {word}" if word else "")


def for_workers(nodes: Sequence[str], workers: Sequence[int]) -> tuple[str, ...]:
    """A node for each worker; `workers`: how many there are on each node, the largest first."""
    if not nodes:
        return ()
    if len(nodes) != len(workers):
        return tuple(nodes)
    return tuple(node for node, count in zip(nodes, workers, strict=True) for _ in range(count))


def over(
    name: str,
    job: SlurmJob,
    workers: Sequence[int],
    asked: Outcome | None,
    claim: Claim | None,
    ended: Ended | None,
) -> Observation:
    """How an attempt ended, by what Slurm says, the marks of its command, and what we asked for.

    Slurm knows why *it* ended a job; how the command ended by itself, the marks say exactly. Without marks Slurm's
    exit status stands for it.
    """
    started_ms = _ms(job.start_s) if job.nodes else None
    ended_ms = _ms(job.end_s)
    if ended is not None and _ended_by_itself(job, ended):
        ended_ms = 1000 * ended.at_s if job.state in _NODE_LOST else ended_ms
    if started_ms is not None and ended_ms is not None:
        ended_ms = max(started_ms, ended_ms)
    code, number = (ended.exit_code, ended.signal) if ended else (job.exit_code, job.signal)
    outcome, cause = _why_over(job, asked, claim, ended)
    if outcome is Outcome.COMPLETED or started_ms is None:
        number = None
    if started_ms is None or (not ended and outcome not in (Outcome.COMPLETED, Outcome.FAILED)):
        code = None
    return Observation(
        name,
        Seen.ENDED,
        started_ms=started_ms,
        ended_ms=ended_ms,
        outcome=outcome,
        exit_code=code,
        signal=number,
        cause=cause,
        peak_memory_mib=ended.peak_memory_mib if ended else None,
        cpu_ms=ended.cpu_ms if ended else None,
        nodes=for_workers(job.nodes, workers),
    )


def _why_over(job: SlurmJob, asked: Outcome | None, claim: Claim | None, ended: Ended | None) -> tuple[Outcome, str]:
    where = f" on {', '.join(job.nodes[:4])}{' ...' if len(job.nodes) > 4 else ''}" if job.nodes else ""
    if claim is not None and claim.stopped is not None:
        return claim.stopped, "It was stopped before it began."
    if ended is not None and _ended_by_itself(job, ended):
        return by_itself(ended, asked)
    match job.state:
        case "CANCELLED":
            if asked is not None:
                return asked, stopped(asked)
            if ended is not None and ended.limited:
                return Outcome.TIMED_OUT, "It reached its time limit."
            return Outcome.CANCELLED, "It was cancelled at the site, and not by Watteau."
        case "TIMEOUT":
            return Outcome.TIMED_OUT, f"It reached its time limit of {job.time_limit_s} s at the site."
        case "DEADLINE":
            return Outcome.TIMED_OUT, "It reached its deadline at the site."
        case "OUT_OF_MEMORY":
            return Outcome.OUT_OF_MEMORY, f"It needed more than its memory limit{where}."
        case "PREEMPTED":
            return Outcome.LOST, f"Slurm preempted it{where} for a job that goes before it."
        case "NODE_FAIL":
            return Outcome.LOST, f"A node failed{where}."
        case "BOOT_FAIL":
            return Outcome.LOST, f"A node could not be started{where}."
        case "COMPLETED" | "FAILED":
            return _how_it_ended(job, asked, claim, ended, where)
    return Outcome.LOST, f"Slurm ended it as {job.state}{where}."


def _ended_by_itself(job: SlurmJob, ended: Ended) -> bool:
    """Whether the command ended before Slurm had a hand in it, whatever Slurm calls the job.

    A slurmctld that is killed may forget that a job has ended. It then finds that the node does not run it, and calls
    that a failure of the node.
    """
    if ended.asked:
        return False
    if job.state == "OUT_OF_MEMORY":  # of some process: the command may have done well all the same
        return ended.exit_code == 0
    if ended.limited or job.state in _NODE_LOST:
        return True
    # Slurm signals a job's processes one after the other: the command may be gone before the batch script hears of it.
    return job.end_s is None or ended.at_s + _CLOCKS_S < job.end_s


def _how_it_ended(
    job: SlurmJob, asked: Outcome | None, claim: Claim | None, ended: Ended | None, where: str
) -> tuple[Outcome, str]:
    if ended is not None:
        return by_itself(ended, asked)
    if job.state == "COMPLETED":
        return Outcome.COMPLETED, ""
    if job.signal == COULD_NOT_START:
        return Outcome.LOST, f"Slurm could not start it{where} ({job.reason or 'JobLaunchFailure'})."
    if claim is not None and (claim.job_id, claim.restarts) != (job.job_id, job.restarts):
        return Outcome.LOST, "Slurm ended its only run, and started it anew; the second one did nothing."
    if asked is not None:
        return asked, stopped(asked)
    return Outcome.FAILED, _failure(job.exit_code, job.signal)


def never_began(seen: Observation, job: SlurmJob, folder: str) -> Observation:
    """What is known of an attempt that left no mark at all, though marks can be read: it never ran its command."""
    where = f" on {', '.join(job.nodes[:4])}" if job.nodes else ""
    if job.state == "CANCELLED":
        # So Slurm ends a job whose node refuses it: its id is that of another one there (`Duplicate jobid`).
        cause = f"Slurm gave it nodes and cancelled it before its batch script began{where}."
        return replace(seen, outcome=Outcome.LOST, exit_code=None, signal=None, cause=cause)
    known = {
        attempt.CANNOT_MARK: f"The folder {folder} cannot be written{where} by the account of the job.",
        attempt.NO_PYTHON: f"There is no python3{where}, which runs the batch script.",
    }
    if (said := known.get(job.exit_code or 0)) is None:
        return seen
    return replace(seen, outcome=Outcome.LOST, exit_code=None, cause=said)


def by_itself(ended: Ended, asked: Outcome | None = None) -> tuple[Outcome, str]:
    """How a command ended that Slurm did not end."""
    if ended.limited:
        return Outcome.TIMED_OUT, "It reached its time limit."
    if ended.lost:
        return Outcome.LOST, ended.cause
    if asked is not None and ended.signal in (signal.SIGTERM, signal.SIGKILL):
        return asked, stopped(asked)
    if ended.exit_code == 0:
        return Outcome.COMPLETED, ""
    return Outcome.FAILED, ended.cause or _failure(ended.exit_code, ended.signal)


def by_marks(name: str, claim: Claim, ended: Ended, asked: Outcome | None, workers: Sequence[int] = ()) -> Observation:
    """How an attempt ended that Slurm no longer remembers."""
    outcome, cause = by_itself(ended, asked)
    if ended.asked and asked is not None:
        outcome, cause = asked, stopped(asked)
    elif ended.asked and outcome is not Outcome.COMPLETED:
        outcome, cause = Outcome.LOST, "Slurm asked it to end, and no longer remembers why."
    return Observation(
        name,
        Seen.ENDED,
        started_ms=1000 * claim.at_s,
        ended_ms=1000 * ended.at_s,
        outcome=outcome,
        exit_code=ended.exit_code,
        signal=ended.signal,
        cause=cause,
        peak_memory_mib=ended.peak_memory_mib,
        cpu_ms=ended.cpu_ms,
        nodes=for_workers(expand(claim.nodes), workers),
    )


def stopped(outcome: Outcome) -> str:
    """Why an attempt ended that was asked to."""
    word = {Outcome.CANCELLED: "cancelled", Outcome.TIMED_OUT: "stopped at its time limit"}.get(outcome)
    return f"It was {word or f'stopped ({outcome.value})'}."


def _failure(code: int | None, number: int | None) -> str:
    if number:
        try:
            return f"It was ended by the signal {signal.Signals(number).name}."
        except ValueError:
            return f"It was ended by signal {number}."
    return f"It exited with code {code}." if code is not None else "It failed."


# ---- jobs of other people ------------------------------------------------------------------------------------------

_STATES = {
    "COMPLETED": JobState.COMPLETED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMED_OUT,
    "DEADLINE": JobState.TIMED_OUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
}


def by_hand(site: SiteId, job: SlurmJob, tenant_of: Callable[[str], TenantId]) -> SiteJob:
    """A job that people gave to the site themselves."""
    over = is_over(job)
    state = JobState.RUNNING if runs(job) else JobState.WAITING
    if over:
        state = _STATES.get(job.state, JobState.FAILED)
    elif state is JobState.WAITING and job.reason in _HELD_REASONS:
        state = JobState.HELD
    began = job.start_s if job.nodes and state is not JobState.WAITING and state is not JobState.HELD else None
    return SiteJob(
        site=site,
        engine_id=site_id_of(job),
        submitted_ms=1000 * job.submit_s,
        name=job.name,
        user=job.user,
        account=job.account,
        tenant=tenant_of(job.account),
        partition=job.partition,
        state=state,
        reason=job.reason if state in (JobState.WAITING, JobState.HELD) else "",
        tasks=job.tasks,
        workers=job.node_count,
        gpus=job.gpus,
        cpus=job.cpus,
        memory_mib=job.memory_mib,
        time_limit_s=job.time_limit_s,
        priority=job.priority,
        eligible_ms=_ms(job.eligible_s),
        started_ms=_ms(began),
        ended_ms=_ms(job.end_s) if over else None,
        exit_code=job.exit_code if over else None,
        signal=job.signal if over else None,
        cause=_cause_by_hand(job) if over else "",
        restarts=job.restarts,
        held=job.held if began is not None else (),
    )


def site_id_of(job: SlurmJob) -> str:
    """What names a job at its site for as long as it is there; the waiting rest of an array goes by the array's id."""
    return str(job.array_job_id) if job.array_rest else job.label


def _cause_by_hand(job: SlurmJob) -> str:
    match job.state:
        case "COMPLETED":
            return ""
        case "FAILED":
            return (
                f"Slurm could not start it ({job.reason})."
                if job.signal == COULD_NOT_START
                else _failure(job.exit_code, job.signal)
            )
        case "CANCELLED":
            return "It was cancelled at the site."
        case "PREEMPTED":
            return "Slurm preempted it."
    return f"Slurm ended it as {job.state}."


# ---- nodes ---------------------------------------------------------------------------------------------------------


def capacities(
    nodes: Iterable[SlurmNode], reservations: Iterable[Reservation], ours: Collection[str], now_s: int
) -> tuple[NodeCapacity, ...]:
    """The nodes, and whether they take our jobs now; `ours`: our user and account."""
    kept: dict[str, str] = {}
    for reservation in reservations:
        mine = set(ours) & {*reservation.users, *reservation.accounts} and "MAINT" not in reservation.flags
        if reservation.start_s <= now_s < reservation.end_s and not mine:
            kept.update(dict.fromkeys(reservation.nodes, f"reservation {reservation.name}"))
    return tuple(_capacity(node, kept) for node in nodes)


def _capacity(node: SlurmNode, kept: Mapping[str, str]) -> NodeCapacity:
    state, why = _node_state(node, kept)
    return NodeCapacity(
        node=node.name,
        gpu_model=gpu_model(node),
        gpus=sum(count for _, count in node.gpus),
        cpu_cores=node.cpus,
        memory_mib=node.memory_mib,
        up=state is NodeState.UP,
        why_down=why,
        state=state,
        features=node.features,
    )


def _node_state(node: SlurmNode, kept: Mapping[str, str]) -> tuple[NodeState, str]:
    words = "+".join([node.state, *sorted(node.flags)]).lower()
    if node.state in _NOT_THERE or node.flags & _NOT_THERE_FLAGS:
        return NodeState.DOWN, node.reason or words
    if node.flags & _DRAIN_FLAGS:
        busy = node.state in ("ALLOCATED", "MIXED") or "COMPLETING" in node.flags
        return (NodeState.DRAINING if busy else NodeState.DRAINED), node.reason or words
    if node.name in kept:
        return NodeState.RESERVED, kept[node.name]
    if "MAINTENANCE" in node.flags or "MAINT" in node.flags:
        return NodeState.RESERVED, node.reason or "maintenance"
    return NodeState.UP, ""


def gpu_model(node: SlurmNode) -> str:
    """What GPUs a node has: the type of its GRES, else the feature that is a model's name; "" when neither says."""
    if not node.gpus:
        return ""
    kind = max(node.gpus, key=lambda kind: kind[1])[0]
    return kind or next((feature for feature in node.features if _MODEL.fullmatch(feature)), "")


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else 1000 * seconds
