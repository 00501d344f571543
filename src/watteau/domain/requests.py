"""What is asked of a live Watteau: a job as its owner writes it down, and the words for what becomes of it."""

import re
from enum import IntEnum, StrEnum
from typing import Annotated, Literal, NewType, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from watteau.domain.jobs import Shape, Topology
from watteau.domain.units import GPU_MILLI

JobId = NewType("JobId", int)

#: No array is larger; Slurm's own default (MaxArraySize) is 1,001.
MOST_ARRAY_TASKS = 10_000
MOST_SCRIPT_BYTES = 1 << 20
_MOST_DEPENDENCIES = 1_000
_YEAR_S = 366 * 86_400


class JobState(StrEnum):
    """Where a job stands. The last six are ends."""

    WAITING = "waiting"
    HELD = "held"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    UNSCHEDULABLE = "unschedulable"

    @property
    def is_end(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobState.WAITING, JobState.HELD, JobState.RUNNING)


class AttemptState(StrEnum):
    """Where one try at running a job stands. UNKNOWN: its engine is silent; it is neither failed nor restarted."""

    INTENDED = "intended"
    RUNNING = "running"
    UNKNOWN = "unknown"
    ENDED = "ended"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    #: Not the job's fault: the node, the engine or the supervisor was lost, or the job could not be started.
    LOST = "lost"


class After(StrEnum):
    """What a job waits for in another one; the words are Slurm's (sbatch --dependency)."""

    BEGUN = "after"
    ANY = "afterany"
    OK = "afterok"
    NOT_OK = "afternotok"
    CORRESPONDING = "aftercorr"


class Kind(StrEnum):
    """What sort of work: runs to its end, serves until stopped, or is used by a person."""

    BATCH = "batch"
    SERVICE = "service"
    SESSION = "session"


class Priority(IntEnum):
    """Priority classes by name; a higher one goes first, whatever the tenants' use."""

    LOW = -100
    NORMAL = 0
    HIGH = 100


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False, allow_inf_nan=False)


class Dependency(_Value):
    """One job, or all tasks of one array, that must have begun or ended first."""

    after: After
    job_id: int = Field(ge=1, le=2**62, description="A job, or the first task of an array for all of its tasks.")
    delay_s: int = Field(0, ge=0, le=_YEAR_S, description="Only with `after`: this long after it began.")


class ArraySpec(_Value):
    """The tasks of a job array: their indices, and how many may run at once."""

    indices: tuple[Annotated[int, Field(ge=0, le=2**31)], ...] = Field(min_length=1, max_length=MOST_ARRAY_TASKS)
    most_running: int | None = Field(None, ge=1, le=MOST_ARRAY_TASKS)

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.indices)) != len(self.indices):
            raise ValueError("an array index is given twice")
        return self


#: A path or word that reaches an engine: no NUL, no line breaks.
Line = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00\r\n]*$")]
_NAME = re.compile(r"^[^\x00-\x1f\x7f/]{1,128}$")


class Request(_Value):
    """A job as it is asked for: `command` (an argument list) or `script` (a text with a #! line), and its needs.

    Each of the `workers` gets `gpu_milli` thousandths of a GPU, `cpu_milli` and `memory_mib` on one node; all start
    together or none. Raises pydantic's ValidationError, which names each field that is wrong.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "train", "command": ["python", "train.py"], "gpu_milli": 1000, "time_limit_s": 3600},
                {"name": "sweep", "script": "#!/bin/sh\necho $WATTEAU_ARRAY_INDEX\n", "array": {"indices": [0, 1, 2]}},
            ]
        },
    )

    name: str = Field("job", description="1 to 128 characters; no slash, no control character.")
    kind: Kind = Kind.BATCH
    tenant: str | None = Field(None, max_length=128, description="Who pays; the caller's own tenant when left out.")
    command: tuple[Annotated[str, StringConstraints(max_length=131_072, pattern=r"^[^\x00]*$")], ...] = Field(
        (), max_length=4_096
    )
    script: str = Field("", max_length=MOST_SCRIPT_BYTES, pattern=r"^[^\x00]*$")
    arguments: tuple[Annotated[str, StringConstraints(max_length=131_072, pattern=r"^[^\x00]*$")], ...] = Field(
        (), max_length=4_096, description="Arguments of the script."
    )
    workers: int = Field(1, ge=1, le=100_000)
    gpu_milli: int = Field(0, ge=0, le=1_000_000, description="Per worker; below 1000 a fraction of one GPU.")
    cpu_milli: int = Field(1_000, ge=0, le=10_000_000, description="Per worker.")
    memory_mib: int = Field(0, ge=0, le=100_000_000, description="Per worker; 0: not limited.")
    gpu_models: tuple[Line, ...] = Field((), max_length=100, description="Empty: any.")
    sites: tuple[Line, ...] = Field((), max_length=100, description="Empty: any.")
    partition: str = Field(
        "",
        max_length=64,
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="Of a Slurm site; empty: the site's usual one. Engines without partitions take no notice.",
    )
    topology: Topology = Topology.ONE_BLOCK_PREFERRED
    priority: Priority = Priority.NORMAL
    time_limit_s: int = Field(0, ge=0, le=10 * _YEAR_S, description="0: no limit. Only the limit kills.")
    estimate_s: int = Field(0, ge=0, le=10 * _YEAR_S, description="Expected run time; 0: the limit, else a day.")
    workdir: Line = Field("", description="Where it runs; empty: a folder of its own. An absolute path.")
    stdout: Line = Field("", description="Empty: kept by the engine. %j: job id, %A: array id, %a: index, %x: name.")
    stderr: Line = Field("", description="Empty: together with stdout.")
    environment: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)], str] = (
        Field(default_factory=dict, max_length=4_096)
    )
    array: ArraySpec | None = None
    dependencies: tuple[Dependency, ...] = Field((), max_length=_MOST_DEPENDENCIES)
    dependency_mode: Literal["all", "any"] = "all"
    singleton: bool = Field(False, description="Wait until no other job of this name and user runs.")
    begin_s: int | None = Field(None, ge=0, le=2**40, description="Not before this epoch second.")
    deadline_s: int | None = Field(None, ge=0, le=2**40, description="Cancelled when not ended by this epoch second.")
    requeue: bool = Field(True, description="Start again when it was lost through no fault of its own.")
    held: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not _NAME.match(self.name):
            raise ValueError("name: 1 to 128 characters, without a slash or a control character")
        if bool(self.command) == bool(self.script):
            raise ValueError("give either a command or a script")
        if self.command and self.arguments:
            raise ValueError("arguments belong to a script; a command carries its own")
        if self.command and not self.command[0]:
            raise ValueError("the command is empty")
        if self.script and not self.script.startswith("#!"):
            raise ValueError("script: the first line must name the interpreter, for example #!/bin/sh")
        if self.gpu_milli > GPU_MILLI and self.gpu_milli % GPU_MILLI:
            raise ValueError("gpu_milli: whole GPUs (a multiple of 1000) or a fraction of one (below 1000)")
        if any("\x00" in value or len(value) > 131_072 for value in self.environment.values()):
            raise ValueError("environment: a value holds a NUL or more than 128 KiB")
        if self.workdir and not self.workdir.startswith("/"):
            raise ValueError("workdir: an absolute path")
        if self.begin_s is not None and self.deadline_s is not None and self.deadline_s <= self.begin_s:
            raise ValueError("the deadline must come after the begin")
        return self

    @property
    def shape(self) -> Shape:
        """What the scheduler sees of it."""
        return Shape(
            workers=self.workers,
            gpu_milli=self.gpu_milli,
            cpu_milli=self.cpu_milli,
            memory_mib=self.memory_mib,
            gpu_models=self.gpu_models,
            sites=self.sites,
            topology=self.topology,
        )

    @property
    def expected_s(self) -> int:
        """The estimate that orders the work, in seconds: what was said, else the limit, else a day."""
        expected = self.estimate_s or self.time_limit_s or 86_400
        return min(expected, self.time_limit_s) if self.time_limit_s else expected
