"""Decisions and the closed list of reasons. Codes are stored: they are never renumbered, only added to."""

from enum import IntEnum


class Reason(IntEnum):
    """Why a job waits: one reason, though several may hold. R16 in docs/rules.md says which.

    The tens group them: the job itself, its quota, the queue, the pools, and what live work adds.
    """

    NONE = 0
    MISCONFIGURED = 10
    NO_SUCH_GPU_MODEL = 11
    NO_SUCH_SITE = 12
    DEPENDENCY_NEVER = 13
    LAUNCH_REFUSED = 14
    EXCEEDS_MAXIMUM = 20
    EXCEEDS_QUOTA = 21
    QUOTA = 30
    CREDITS = 31
    BEHIND_OTHERS = 40
    CAPACITY = 50
    NOT_OPEN_YET = 51
    SITE_POWER = 52
    OUTAGE_AHEAD = 53
    TOPOLOGY = 60
    AWAITING_PREEMPTION = 70
    SITE_UNREACHABLE = 80
    GREEN_HOLD = 90
    STOPPED = 100
    DEPENDENCY = 101
    BEGIN_TIME = 102
    ARRAY_LIMIT = 103
    BUDGET_EXHAUSTED = 110

    @property
    def is_final(self) -> bool:
        """Whether waiting longer cannot help: the job will never start on this fleet."""
        return 0 < self < Reason.QUOTA


#: One sentence a person can act on, by reason.
SENTENCE: dict[Reason, str] = {
    Reason.NONE: "The job is not waiting.",
    Reason.MISCONFIGURED: "The request contradicts itself; correct it and submit again.",
    Reason.NO_SUCH_GPU_MODEL: "No pool of this fleet has a GPU model that the job allows.",
    Reason.NO_SUCH_SITE: "This fleet has no site that the job allows.",
    Reason.DEPENDENCY_NEVER: "A job that it depends on ended otherwise than it asks; submit it again without that.",
    Reason.LAUNCH_REFUSED: "The site's engine refuses to run it as it was asked for; correct it and submit again.",
    Reason.EXCEEDS_MAXIMUM: "The job asks for more than its allowed pools will ever have; ask for less.",
    Reason.EXCEEDS_QUOTA: "The job alone is larger than its tenant's quota; ask for less or for a larger quota.",
    Reason.QUOTA: "The tenant's quota is in use; the job starts when the tenant's own jobs end.",
    Reason.CREDITS: "The tenant's free credits do not cover the job.",
    Reason.BEHIND_OTHERS: "Starting the job now would delay jobs that are ahead of it.",
    Reason.CAPACITY: "Not enough GPUs, CPU cores or memory are free together.",
    Reason.NOT_OPEN_YET: "The job fits only on capacity that opens later.",
    Reason.SITE_POWER: "The site is at its power limit.",
    Reason.OUTAGE_AHEAD: "The job would still run when a planned outage begins.",
    Reason.TOPOLOGY: "Enough GPUs are free, but not inside one fast-fabric block.",
    Reason.AWAITING_PREEMPTION: "Jobs that must make room are still ending.",
    Reason.SITE_UNREACHABLE: "The site's engine does not answer.",
    Reason.GREEN_HOLD: "The job is flexible and waits for renewable supply, at most until its latest start.",
    Reason.STOPPED: "Someone holds the job; release it to let it start.",
    Reason.DEPENDENCY: "Jobs that it depends on have not begun or ended yet.",
    Reason.BEGIN_TIME: "The job asked not to start before a time that has not come.",
    Reason.ARRAY_LIMIT: "As many tasks of the array run as it allows at once.",
    Reason.BUDGET_EXHAUSTED: "The search budget of this cycle ran out before the job was tried; it is tried again.",
}
