"""The answers of slurmrestd, of which only the fields that are needed are decoded, and what they say as our facts.

One set of shapes reads API v0.0.38 to v0.0.43: later ones wrap numbers as {"set", "infinite", "number"}, and have lists
where there was a word. Whatever a version lacks keeps its default. v0.0.38 was tried against a real daemon (Slurm
22.05.8), the later ones were read from Slurm's own sources and documentation.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Raw, Struct, field

from watteau.domain.sites import Held, Partition, Reservation
from watteau.engines.slurm.facts import SlurmJob, SlurmNode
from watteau.engines.slurm.values import (
    ENDED,
    gpu_count,
    gpu_kinds,
    how_ended,
    job_state,
    names,
    node_state,
    spread,
    text_of,
    tres,
    wait_status,
)


class Wrapped(Struct, gc=False):
    """A number as API v0.0.39 and later wrap it."""

    set: bool = True
    infinite: bool = False
    number: int | float | None = None


Number = int | float | Wrapped | None


def whole(number: Number, otherwise: int = 0) -> int:
    """A number by itself; `otherwise` where it is not set, infinite, or one of Slurm's marks for that."""
    if isinstance(number, Wrapped):
        number = number.number if number.set and not number.infinite else None
    # -1, INFINITE (2^32-1) and NO_VAL (2^32-2), and the same of 64 bits.
    if number is None or number < 0 or number in (2**32 - 1, 2**32 - 2, 2**64 - 1, 2**64 - 2):
        return otherwise
    return int(number)


class Failure(Struct, gc=False):
    """One error that slurmrestd lists. Which fields are there depends on where it came from."""

    error: str | None = None
    description: str | None = None
    source: str | None = None
    error_number: Number = None
    error_code: Number = None
    errno: Number = None

    @property
    def number(self) -> int | None:
        """Slurm's number of the error; -1: it does not say which."""
        for each in (self.error_number, self.error_code, self.errno):
            if isinstance(each, int | float):
                return int(each)
            if isinstance(each, Wrapped) and each.number is not None:
                return int(each.number)
        return None

    def __str__(self) -> str:
        said = [text for text in (self.error, self.description) if text]
        return ": ".join(dict.fromkeys(said)) or "an error without a word"


class Release(Struct, gc=False):
    """Which Slurm answers."""

    release: str = ""


class Meta(Struct, gc=False):
    """What an answer says of the server."""

    old: Release | None = field(default=None, name="Slurm")
    new: Release | None = field(default=None, name="slurm")

    @property
    def release(self) -> str:
        """For example 22.05.8; "" when it is not said."""
        found = self.new or self.old
        return found.release if found else ""


class Answer(Struct):
    """What every answer has. `errors` may be listed beside a success."""

    meta: Meta | None = None
    errors: list[Failure] | None = None


class Submitted(Answer):
    """The answer to a submission."""

    job_id: Number = None


class Statistics(Struct):
    """Of slurmctld."""

    req_time: Number = None


class Diag(Answer):
    """What slurmctld says of itself."""

    statistics: Statistics | None = None


class Paths(Struct):
    """The API's own description."""

    paths: dict[str, Raw]


# ---- jobs ----------------------------------------------------------------------------------------------------------


class Cpus(Struct, gc=False):
    """From v0.0.41 on."""

    count: Number = None


class OnNode(Struct, gc=False):
    """What a job has of one node: `sockets` up to v0.0.40, `cpus` from v0.0.41 on."""

    nodename: str | None = None
    name: str | None = None
    sockets: Raw = Raw(b"")
    cpus: Cpus | None = None

    @property
    def node(self) -> str:
        """Its name."""
        return self.nodename or self.name or ""

    @property
    def share(self) -> int:
        """How much of the job's CPUs are here, in a unit that is the same for all of its nodes; 0: it is not said."""
        if self.cpus is not None:
            return whole(self.cpus.count)
        # Each core of the job stands here as "allocated" or "allocated_and_in_use"; the tree itself is not needed.
        return bytes(self.sockets).lower().count(b'"allocated')


class OnNodes(Struct, gc=False):
    """From v0.0.41 on."""

    allocation: list[OnNode] | None = None


class Resources(Struct, gc=False):
    """What a job has."""

    allocated_nodes: list[OnNode] | dict[str, OnNode] | str | None = None
    nodes: OnNodes | str | None = None

    @property
    def each(self) -> list[OnNode]:
        """By node, in the job's own order of nodes."""
        if isinstance(self.nodes, OnNodes):
            return self.nodes.allocation or []
        return self.allocated_nodes if isinstance(self.allocated_nodes, list) else []


class SignalNumber(Struct, gc=False):
    """The signal that ended something: `signal_id` in v0.0.38, `id` later."""

    id: Number = None
    signal_id: Number = None


class ExitCode(Struct, gc=False):
    """An exit code, taken apart (v0.0.40 and later, and all of slurmdb), or a wrapped wait status (v0.0.39)."""

    return_code: Number = None
    signal: SignalNumber | None = None
    set: bool = True
    number: Number = None


def exit_of(said: int | ExitCode | None) -> tuple[int | None, int | None]:
    """(exit code, signal)."""
    if said is None:
        return None, None
    if isinstance(said, int):
        return wait_status(said)
    if said.signal is not None and (number := whole(said.signal.id) or whole(said.signal.signal_id)):
        return None, number
    if said.return_code is not None:
        return whole(said.return_code), None
    return wait_status(whole(said.number)) if said.number is not None else (None, None)


class JobAnswer(Struct, gc=False):
    """One job of /jobs."""

    job_id: int = 0
    array_job_id: Number = None
    array_task_id: Number = None
    array_task_string: str | None = None
    name: str | None = None
    user_name: str | None = None
    account: str | None = None
    partition: str | None = None
    comment: str | None = None
    job_state: str | list[str] = ""
    state_reason: str | None = None
    submit_time: Number = None
    eligible_time: Number = None
    start_time: Number = None
    end_time: Number = None
    time_limit: Number = None
    priority: Number = None
    nodes: str | None = None
    node_count: Number = None
    cpus: Number = None
    tasks: Number = None
    memory_per_node: Number = None
    memory_per_cpu: Number = None
    tres_req_str: str | None = None
    tres_alloc_str: str | None = None
    tres_per_job: str | None = None
    tres_per_node: str | None = None
    tres_per_task: str | None = None
    gres_detail: list[str] | None = None
    job_resources: Resources | list[Any] | str | None = None
    exit_code: int | ExitCode | None = None
    restart_cnt: Number = None


class Jobs(Answer):
    """All jobs."""

    jobs: list[JobAnswer] | None = None
    last_update: Number = None


def job_of(said: JobAnswer) -> SlurmJob:
    """One job as our fact."""
    state, flags = job_state(said.job_state)
    nodes = names(said.nodes or "") if state != "PENDING" else ()
    over = state in ENDED
    count = len(nodes) or max(1, whole(said.node_count, 1))
    known = tres((nodes and said.tres_alloc_str) or said.tres_req_str or "")
    gpus = known.gpus or _gpus_asked(said, count)
    cpus = whole(said.cpus) or known.cpus
    memory = known.memory_mib or whole(said.memory_per_node) * count or whole(said.memory_per_cpu) * cpus
    array_id = whole(said.array_job_id)
    task = whole(said.array_task_id, -1) if array_id else -1
    code, number = how_ended(state, *exit_of(said.exit_code)) if over and nodes else (None, None)
    return SlurmJob(
        job_id=said.job_id,
        array_job_id=array_id,
        array_task_id=task if task >= 0 else None,
        array_rest=text_of(said.array_task_string) if array_id and task < 0 else "",
        name=said.name or "",
        user=said.user_name or "",
        account=said.account or "",
        partition=said.partition or "",
        state=state,
        flags=flags,
        reason=text_of(said.state_reason),
        submit_s=whole(said.submit_time),
        eligible_s=whole(said.eligible_time) or None,
        start_s=whole(said.start_time) or None if nodes else None,
        end_s=whole(said.end_time) or None if over else None,
        time_limit_s=60 * whole(said.time_limit),
        priority=whole(said.priority),
        nodes=nodes,
        node_count=count,
        gpus=gpus,
        cpus=cpus,
        memory_mib=memory,
        held=_held(said, nodes, gpus, cpus, memory),
        exit_code=code,
        signal=number,
        restarts=whole(said.restart_cnt),
        comment=said.comment or "",
    )


def _gpus_asked(said: JobAnswer, nodes: int) -> int:
    """GPUs by what was asked for, at sites whose accounting does not track GPUs."""
    return (
        gpu_count(said.tres_per_job or "")
        or gpu_count(said.tres_per_node or "") * nodes
        or gpu_count(said.tres_per_task or "") * max(1, whole(said.tasks, 1))
    )


def _held(said: JobAnswer, nodes: tuple[str, ...], gpus: int, cpus: int, memory: int) -> tuple[Held, ...]:
    if len(nodes) < 2:
        return spread(nodes, gpus, cpus, memory)
    even = {each.node: each for each in spread(nodes, gpus, cpus, memory)}
    on = said.job_resources.each if isinstance(said.job_resources, Resources) else []
    if {each.node for each in on} != set(nodes):
        return tuple(even.values())
    shares = [each.share for each in on]
    parts = sum(shares)
    detail = said.gres_detail or []
    for index, each in enumerate(on):
        its = even[each.node]
        even[each.node] = Held(
            each.node,
            gpu_count(detail[index]) if len(detail) == len(on) else its.gpus,
            cpus * shares[index] // parts if parts else its.cpus,
            its.memory_mib,
        )
    return tuple(even.values())


# ---- nodes, partitions, reservations -------------------------------------------------------------------------------


class NodeAnswer(Struct, gc=False):
    """One node."""

    name: str = ""
    state: str | list[str] | None = None
    state_flags: list[str] | None = None
    reason: str | None = None
    cpus: Number = None
    real_memory: Number = None
    gres: str | None = None
    features: str | list[str] | None = None
    partitions: list[str] | None = None


class Nodes(Answer):
    """All nodes."""

    nodes: list[NodeAnswer] | None = None


def node_of(said: NodeAnswer) -> SlurmNode:
    """One node as our fact."""
    words = [said.state] if isinstance(said.state, str) else said.state or []
    state, flags = node_state([*words, *(said.state_flags or [])])
    return SlurmNode(
        name=said.name,
        state=state,
        flags=flags,
        reason=text_of(said.reason),
        cpus=whole(said.cpus),
        memory_mib=whole(said.real_memory),
        gpus=gpu_kinds(said.gres or ""),
        features=_listed(said.features),
        partitions=tuple(said.partitions or ()),
    )


class Limits(Struct, gc=False):
    """`maximums`, `minimums` and `defaults` of a partition, from v0.0.39 on."""

    nodes: Number = None
    time: Number = None


class PartitionNodes(Struct, gc=False):
    """From v0.0.39 on."""

    configured: str | None = None


class PartitionState(Struct, gc=False):
    """From v0.0.40 on."""

    state: list[str] | str | None = None


class PartitionAnswer(Struct, gc=False):
    """One partition."""

    name: str = ""
    flags: list[str] | None = None
    nodes: str | PartitionNodes | None = None
    state: str | None = None
    partition: PartitionState | None = None
    max_time_limit: Number = None
    default_time_limit: Number = None
    maximum_nodes_per_job: Number = None
    least_nodes: Number = field(default=None, name="min nodes per job")
    maximums: Limits | None = None
    minimums: Limits | None = None
    defaults: Limits | None = None


class Partitions(Answer):
    """All partitions."""

    partitions: list[PartitionAnswer] | None = None


def partition_of(said: PartitionAnswer) -> Partition:
    """One partition as our fact. Which one is the default is not said from v0.0.39 on."""
    most, least, default = (each or Limits() for each in (said.maximums, said.minimums, said.defaults))
    hosts = said.nodes.configured if isinstance(said.nodes, PartitionNodes) else said.nodes
    state = said.partition.state if said.partition else said.state
    return Partition(
        name=said.name,
        is_default="DEFAULT" in {flag.upper() for flag in said.flags or ()},
        up="UP" in ([state] if isinstance(state, str) else state or ["UP"]),
        nodes=names(hosts or ""),
        most_time_s=60 * (whole(said.max_time_limit) or whole(most.time)),
        default_time_s=60 * (whole(said.default_time_limit) or whole(default.time)),
        most_nodes=whole(said.maximum_nodes_per_job) or whole(most.nodes),
        least_nodes=whole(said.least_nodes) or whole(least.nodes),
    )


class ReservationAnswer(Struct, gc=False):
    """One reservation."""

    name: str = ""
    start_time: Number = None
    end_time: Number = None
    node_list: str | None = None
    users: str | list[str] | None = None
    accounts: str | list[str] | None = None
    flags: list[str] | None = None


class Reservations(Answer):
    """All reservations."""

    reservations: list[ReservationAnswer] | None = None


def reservation_of(said: ReservationAnswer) -> Reservation:
    """One reservation as our fact."""
    return Reservation(
        name=said.name,
        start_s=whole(said.start_time),
        end_s=whole(said.end_time),
        nodes=names(said.node_list or ""),
        users=_listed(said.users),
        accounts=_listed(said.accounts),
        flags=tuple(said.flags or ()),
    )


def _listed(words: str | Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(words, str):
        words = text_of(words).split(",")
    return tuple(word for word in words or () if word)


# ---- accounting ----------------------------------------------------------------------------------------------------


class PastArray(Struct, gc=False):
    """The array that a job is of."""

    job_id: Number = None
    task_id: Number = None
    task: str | None = None


class PastTime(Struct, gc=False):
    """When a job was what."""

    submission: Number = None
    eligible: Number = None
    start: Number = None
    end: Number = None
    limit: Number = None


class PastState(Struct, gc=False):
    """What became of a job."""

    current: str | list[str] | None = None
    reason: str | None = None


class PastUser(Struct, gc=False):
    """Whose job it was."""

    user: str | None = None
    account: str | None = None


class PastComment(Struct, gc=False):
    """What people wrote on a job."""

    job: str | None = None


class Counted(Struct, gc=False):
    """So much of one trackable resource."""

    type: str = ""
    name: str | None = None
    count: Number = None


class PastTres(Struct, gc=False):
    """What a job had, and had asked for."""

    allocated: list[Counted] | None = None
    requested: list[Counted] | None = None


class PastJob(Struct, gc=False):
    """One job of /slurmdb/.../jobs."""

    job_id: int = 0
    array: PastArray | None = None
    name: str | None = None
    user: str | None = None
    association: PastUser | None = None
    account: str | None = None
    partition: str | None = None
    state: PastState | None = None
    time: PastTime | None = None
    priority: Number = None
    nodes: str | None = None
    allocation_nodes: Number = None
    tres: PastTres | None = None
    exit_code: ExitCode | None = None
    comment: PastComment | str | None = None


class PastJobs(Answer):
    """A piece of the accounting."""

    jobs: list[PastJob] | None = None


def past_job_of(said: PastJob) -> SlurmJob:
    """One job of the accounting as our fact."""
    time, array = said.time or PastTime(), said.array or PastArray()
    state, flags = job_state((said.state.current if said.state else None) or "")
    nodes = names(said.nodes or "") if state != "PENDING" else ()
    over = state in ENDED or bool(whole(time.end))
    have = said.tres or PastTres()
    counted = have.allocated or have.requested or []
    cpus, memory = _counted(counted, "cpu"), _counted(counted, "mem")
    gpus = _counted(counted, "gres", "gpu") or sum(
        whole(each.count) for each in counted if each.type == "gres" and (each.name or "").startswith("gpu:")
    )
    count = len(nodes) or max(1, whole(said.allocation_nodes, 1), _counted(counted, "node"))
    array_id, task = whole(array.job_id), whole(array.task_id, -1)
    code, number = how_ended(state, *exit_of(said.exit_code)) if over and nodes else (None, None)
    comment = said.comment.job if isinstance(said.comment, PastComment) else said.comment
    return SlurmJob(
        job_id=said.job_id,
        array_job_id=array_id,
        array_task_id=task if array_id and task >= 0 else None,
        array_rest=text_of(array.task) if array_id and task < 0 else "",
        name=said.name or "",
        user=said.user or (said.association.user if said.association else "") or "",
        account=said.account or "",
        partition=said.partition or "",
        state=state,
        flags=flags,
        reason=text_of(said.state.reason if said.state else None),
        submit_s=whole(time.submission),
        eligible_s=whole(time.eligible) or None,
        start_s=whole(time.start) or None if nodes else None,
        end_s=whole(time.end) or None if over else None,
        time_limit_s=60 * whole(time.limit),
        priority=whole(said.priority),
        nodes=nodes,
        node_count=count,
        gpus=gpus,
        cpus=cpus,
        memory_mib=memory,
        held=spread(nodes, gpus, cpus, memory),
        exit_code=code,
        signal=number,
        restarts=0,
        comment=comment or "",
    )


def _counted(counted: Iterable[Counted], kind: str, name: str = "") -> int:
    return sum(whole(each.count) for each in counted if each.type == kind and (each.name or "") == name)
