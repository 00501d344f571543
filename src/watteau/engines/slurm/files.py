"""Reads files of a site that this machine sees as well, under another name."""

import os
from functools import cache

from watteau.domain.fleet import SlurmAccess


@cache
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def read_here(access: SlurmAccess, path: str, start: int, most: int) -> bytes | None:
    """Up to `most` bytes of a file of the nodes, from an offset; None: it does not lie where this machine sees it.

    Only files that really lie in the folder are read: a job's owner may put a link to anything there, and this process
    may read what the owner may not. Raises FileNotFoundError.
    """
    folder = access.folder.rstrip("/")
    if not access.folder_here or not path.startswith(f"{folder}/"):
        return None
    here = f"{access.folder_here}/{path[len(folder) + 1 :]}"
    # O_NONBLOCK: a pipe that nobody writes to would be waited for.
    handle = os.open(here, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        real = os.readlink(f"/proc/self/fd/{handle}")
        if not real.startswith(_real(access.folder_here) + "/"):
            _real.cache_clear()  # where the folder really is may have changed
        if not real.startswith(_real(access.folder_here) + "/"):
            raise FileNotFoundError(f"{path} leads out of {folder}")
        return os.pread(handle, most, start)
    finally:
        os.close(handle)
