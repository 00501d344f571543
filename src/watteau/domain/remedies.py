"""What would help a job that waits, by reason: who can act, and how."""

from watteau.domain.decisions import Reason

#: (who can act, what to do); `docs/how-to/read-a-reason.md` says the same.
REMEDY: dict[Reason, tuple[str, str]] = {
    Reason.MISCONFIGURED: ("you", "The request contradicts itself. Correct it and submit it again."),
    Reason.NO_SUCH_GPU_MODEL: ("you", "Allow a GPU model that a pool of the fleet has, or allow all."),
    Reason.NO_SUCH_SITE: ("you", "Allow a site that the fleet has, or allow all."),
    Reason.DEPENDENCY_NEVER: ("tenant", "See why the other job failed; submit both again."),
    Reason.LAUNCH_REFUSED: ("tenant", "Read the detail: it says what the engine refused and what to change."),
    Reason.EXCEEDS_MAXIMUM: (
        "you",
        "Ask for fewer workers or smaller ones, or allow more pools: not even the last phase is large enough.",
    ),
    Reason.EXCEEDS_QUOTA: ("you, your programme", "Ask for less, or for a larger quota: the job alone is above it."),
    Reason.QUOTA: ("you", "Wait for your own jobs, or end one."),
    Reason.CREDITS: ("you, your programme", "Ask for less, or for a grant."),
    Reason.BEHIND_OTHERS: ("nobody", "Wait your turn. A shorter limit or fewer GPUs may fit into a gap before it."),
    Reason.CAPACITY: ("nobody", "Wait for jobs to end, or allow more sites or GPU models."),
    Reason.NOT_OPEN_YET: ("platform", "Wait for the phase to open, or allow pools that are open."),
    Reason.SITE_POWER: ("platform", "Wait, or allow another site: there are free GPUs, and no power for them."),
    Reason.OUTAGE_AHEAD: ("you", "Give a limit short enough to end before the outage, or allow another site."),
    Reason.TOPOLOGY: ("you", "Wait for one block to empty, or say that one block is preferred and not required."),
    Reason.AWAITING_PREEMPTION: ("nobody", "Wait: room is being made for you."),
    Reason.SITE_UNREACHABLE: ("platform", "Nothing; what runs there is neither failed nor started again."),
    Reason.GREEN_HOLD: (
        "you",
        "Nothing, or take the flexibility back: the job starts at its latest start at the latest.",
    ),
    Reason.STOPPED: ("whoever stopped it", "Release it."),
    Reason.DEPENDENCY: ("tenant", "Nothing; or cancel the job that it waits for."),
    Reason.BEGIN_TIME: ("tenant", "Nothing; or submit again without `--begin`."),
    Reason.ARRAY_LIMIT: ("tenant", "Nothing; the next task starts when one ends."),
    Reason.BUDGET_EXHAUSTED: (
        "platform",
        "Nothing: it is tried again. If it lasts, the step's search budget is too small.",
    ),
}
