"""Chooses how a Slurm cluster is reached."""

from collections.abc import Callable

from watteau.domain.fleet import SlurmAccess
from watteau.engines.contract import EngineUnreachable
from watteau.engines.slurm.facts import Slurm


def reach(access: SlurmAccess, now_ms: Callable[[], int]) -> Slurm:
    """The cluster by slurmrestd where that is given, else by its commands; nothing is asked of it yet.

    Raises EngineUnreachable when what `watteau[slurm]` installs is not there.
    """
    try:
        if access.rest_url:
            from watteau.engines.slurm.rest import RestSlurm

            return RestSlurm(access, now_ms)
        from watteau.engines.slurm.commands import CommandSlurm

        return CommandSlurm(access)
    except ImportError as missing:
        raise EngineUnreachable(
            f"a site with engine slurm needs {missing.name or 'a library'}, which is not installed: "
            "pip install 'watteau[slurm]'"
        ) from missing
