"""Reads files of a site that this machine sees as well, under another name."""

import os
from pathlib import Path

from watteau.domain.fleet import SlurmAccess


def read_here(access: SlurmAccess, path: str, start: int, most: int) -> bytes | None:
    """Up to `most` bytes of a file of the nodes, from an offset; None: it does not lie where this machine sees it.

    Only files that really lie in the folder are read: a job's owner may put a link to anything there, and this process
    may read what the owner may not. Raises FileNotFoundError.
    """
    folder = access.folder.rstrip("/")
    if not access.folder_here or not path.startswith(f"{folder}/"):
        return None
    base = os.path.realpath(access.folder_here)
    # O_NONBLOCK: a pipe that nobody writes to would be waited for.
    handle = os.open(Path(base) / path[len(folder) + 1 :], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        real = os.readlink(f"/proc/self/fd/{handle}")
        if not real.startswith(f"{base}/"):
            raise FileNotFoundError(f"{path} leads out of {folder}")
        return os.pread(handle, most, start)
    finally:
        os.close(handle)
