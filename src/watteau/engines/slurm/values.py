"""Reads values as Slurm writes them: states, GRES, TRES, exit statuses, times."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from watteau.domain.sites import Held
from watteau.engines.contract import EngineUnreachable
from watteau.engines.slurm.hosts import expand

#: What a job's state may be by itself; the other words say what happens to it meanwhile.
BASE_STATES = frozenset(
    {
        *("PENDING", "RUNNING", "SUSPENDED", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL"),
        *("PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"),
    }
)
#: States in which a job has ended.
ENDED = BASE_STATES - {"PENDING", "RUNNING", "SUSPENDED"}
#: What stands under a flag that Slurm shows in place of the base state, which it does up to API v0.0.39. A job that is
#: completing still has its nodes, so it counts as running: how it ends is shown a moment later.
_UNDER = {
    **dict.fromkeys(("COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"), "RUNNING"),
    **dict.fromkeys(("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), "PENDING"),
    "REVOKED": "CANCELLED",
}
_NODE_STATES = frozenset({"UNKNOWN", "DOWN", "IDLE", "ALLOCATED", "ERROR", "MIXED", "FUTURE", "INVALID"})
#: Words for one thing that differ between squeue, sinfo, scontrol and the versions of slurmrestd.
_NODE_WORDS = {"ALLOC": "ALLOCATED", "MIX": "MIXED", "UNK": "UNKNOWN", "MAINT": "MAINTENANCE", "RESV": "RESERVED"}
_NODE_WORDS |= {"NO_RESPOND": "NOT_RESPONDING", "NON_RESPONDING": "NOT_RESPONDING", "COMP": "COMPLETING"}
_NOTHING = frozenset({"", "(null)", "N/A", "None", "none", "Unknown", "UNKNOWN", "(none)", "None assigned"})
_MIB_PER = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}


def text_of(word: str | None) -> str:
    """A word, or "" where Slurm says by a word that there is none."""
    return "" if word is None or word in _NOTHING else word


#: squeue shows a sentence in place of the reason where slurmctld made one, beside the reason's own word.
_SENTENCES = {
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": "Resources"
}


def reason_of(said: str) -> str:
    """The word of squeue's reason: `ReqNodeNotAvail, UnavailableNodes:gpu7` is ReqNodeNotAvail."""
    said = text_of(said)
    word, comma, _ = said.partition(",")
    return _SENTENCES.get(said) or (word if comma and word.isalnum() else said)


def job_state(words: str | Iterable[str]) -> tuple[str, frozenset[str]]:
    """(base state, flags) of `RUNNING`, of `COMPLETING`, of `CANCELLED by 1000`, or of a list of such words."""
    said = [words.split(" ", 1)[0]] if isinstance(words, str) else list(words)
    said = [word.upper() for word in said]
    flags = frozenset(said) - BASE_STATES
    base = next((word for word in said if word in BASE_STATES), None)
    if base is None:
        base = next((_UNDER[word] for word in said if word in _UNDER), "PENDING")
    return base, flags


def node_state(words: Iterable[str]) -> tuple[str, frozenset[str]]:
    """(base state, flags) of a node's words, in any spelling; `*` after one says that the node does not respond."""
    said: set[str] = set()
    for word in words:
        bare = word.upper().rstrip("*~#!%$@^-+")
        said.add(_NODE_WORDS.get(bare, bare))
        if "*" in word:
            said.add("NOT_RESPONDING")
    base = next((word for word in _NODE_STATES if word in said), "UNKNOWN")
    return base, frozenset(said - _NODE_STATES - {""})


@lru_cache(maxsize=65_536)
def names(hosts: str) -> tuple[str, ...]:
    """The nodes of a host list; none where Slurm says that there are none."""
    hosts = text_of(hosts)
    if not hosts:
        return ()
    # Most jobs run on one node, and a name by itself needs no reader.
    if not any(sign in hosts for sign in "[,"):
        return (hosts,)
    try:
        return expand(hosts)
    except ValueError as wrong:
        raise EngineUnreachable(f"Slurm names nodes in a way that is not known here: {wrong}") from wrong


def _parts(text: str) -> list[str]:
    """Parts between commas, but for those within brackets: gpu:a100:4(IDX:0,2-3),gpu:v100:1."""
    return [part for part in re.split(r",(?![^(\[]*[)\]])", text) if part]


@lru_cache(maxsize=4_096)
def gpu_kinds(gres: str) -> tuple[tuple[str, int], ...]:
    """(type or "", count) of each kind of GPU in `gpu:h100:8(S:0-1),tmp:1`, `gres:gpu:4`, `gres/gpu=8` or `gpu:8`."""
    found: dict[str, int] = {}
    for part in _parts(text_of(gres)):
        bare = part.partition("(")[0].removeprefix("gres/").removeprefix("gres:").replace("=", ":")
        words = [word for word in bare.split(":") if word != "no_consume"]
        if words[0] != "gpu":
            continue
        count = words.pop() if len(words) > 1 and re.fullmatch(r"\d+[kKmM]?", words[-1], re.A) else "1"
        number = int(count.rstrip("kKmM")) * {"k": 1024, "m": 1024**2}.get(count[-1].lower(), 1)
        kind = words[1] if len(words) > 1 else ""
        found[kind] = found.get(kind, 0) + number
    return tuple(found.items())


def gpu_count(gres: str) -> int:
    """All GPUs in a GRES or TRES text. `gres/gpu=8,gres/gpu:h100=8` are eight: the first is the sum of the others."""
    kinds = dict(gpu_kinds(gres))
    return kinds[""] if kinds.get("") and "gres/gpu=" in gres else sum(kinds.values())


@dataclass(frozen=True, slots=True)
class Tres:
    """Trackable resources of one job, all nodes together."""

    cpus: int
    memory_mib: int
    nodes: int
    gpus: int


@lru_cache(maxsize=16_384)
def tres(text: str) -> Tres:
    """What `cpu=16,mem=128G,node=2,billing=16,gres/gpu=8` says; 0 for what it does not."""
    said = dict(part.partition("=")[::2] for part in _parts(text_of(text)))
    return Tres(
        cpus=_whole(said.get("cpu", "")),
        memory_mib=memory_mib(said.get("mem", "")),
        nodes=_whole(said.get("node", "")),
        gpus=gpu_count(text),
    )


def memory_mib(text: str) -> int:
    """MiB of `128G`, `1.50T`, `4000M`, or of a bare number, which is of MiB; 0 for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)[nc]?", text.strip(), re.A)
    return 0 if found is None else round(float(found[1]) * _MIB_PER[found[2]])


def _whole(text: str) -> int:
    """`16`, and `64K` for large ones."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KM]?)", text, re.A)
    return 0 if found is None else round(float(found[1]) * {"": 1, "K": 1000, "M": 1_000_000}[found[2]])


def wait_status(status: int) -> tuple[int | None, int | None]:
    """(exit code, signal) of a raw wait status, as `job_info` has it: 768 is exit 3, 9 is signal 9."""
    try:
        code = os.waitstatus_to_exitcode(status & 0xFFFF)
    except ValueError:  # stopped: not a way to end
        return None, None
    return (code, None) if code >= 0 else (None, -code)


def code_and_signal(text: str) -> tuple[int | None, int | None]:
    """(exit code, signal) of sacct's `3:0` and `0:9`."""
    code, _, number = text.partition(":")
    if number.isdigit() and int(number):
        return None, int(number)
    return (int(code), None) if code.isdigit() else (None, None)


def how_ended(state: str, code: int | None, number: int | None) -> tuple[int | None, int | None]:
    """(exit code, signal) of a job that ended in a state. Only one that completed has exited with 0.

    The accounting says so of cancelled ones, too, and that of API v0.0.38 of all.
    """
    return (code or None, number) if state != "COMPLETED" else (code, number)


def epoch_s(text: str) -> int | None:
    """Seconds of a time that was printed with SLURM_TIME_FORMAT=%s; None: there is none."""
    return int(text) if text.isdigit() and int(text) else None


def limit_s(text: str) -> int:
    """Seconds of `1-02:00:00`, `1:00:00`, `30:00`; 0: no limit, or one that is the partition's."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text.strip(), re.A)
    if found is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def spread(nodes: tuple[str, ...], gpus: int, cpus: int, memory: int) -> tuple[Held, ...]:
    """What a job has on each of its nodes when only the sums are known: as even as it gets, the first ones more."""
    count = len(nodes)
    if not count:
        return ()
    if count == 1:
        return (Held(nodes[0], gpus, cpus, memory),)
    return tuple(
        Held(node, *(whole // count + (index < whole % count) for whole in (gpus, cpus, memory)))
        for index, node in enumerate(nodes)
    )
