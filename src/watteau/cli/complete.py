"""Shell completion from the server: ids of jobs, states, sites. Quick or nothing, and never an error."""

from typing import Any

_PATIENCE_S = 1.0
_MOST = 50


def states(incomplete: str) -> list[str]:
    """States of jobs, and `any`."""
    from watteau.domain.requests import JobState

    return [state for state in ("any", *JobState) if state.startswith(incomplete)]


def sites(incomplete: str) -> list[tuple[str, str]]:
    """Sites of the fleet: id and name."""
    try:
        from watteau.client import Client

        with Client(timeout_s=_PATIENCE_S, retries=0) as client:
            found = client.sites()
    except Exception:  # as below
        return []
    return [(site.id, site.name) for site in found if site.id.startswith(incomplete)]


def live_jobs(incomplete: str) -> list[tuple[str, str]]:
    """Jobs of one's own that have not ended: label and name."""
    return _jobs(incomplete, ended=False)


def any_jobs(incomplete: str) -> list[tuple[str, str]]:
    """Jobs of one's own: label, name and state."""
    return _jobs(incomplete, ended=True)


def _jobs(incomplete: str, ended: bool) -> list[tuple[str, str]]:
    try:
        from watteau.client import Client
        from watteau.domain.requests import JobState

        with Client(timeout_s=_PATIENCE_S, retries=0) as client:
            only: dict[str, Any] = {} if ended else {"state": [state for state in JobState if not state.is_end]}
            found = client.page(limit=_MOST, user=client.me().user.name, **only).jobs
    except Exception:  # whatever is wrong, the shell is waiting for words, not for an explanation
        return []
    return [(job.label, f"{job.name} ({job.state})") for job in found if job.label.startswith(incomplete)]
