"""What can go wrong in the store, by what the caller can do about it."""


class StoreUnavailable(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """The database cannot be read or written now (gone, locked, full, read-only). Nothing of the request was kept.

    One case is open: the connection to PostgreSQL breaks during the commit. Then all of the request was kept or
    nothing; the message says so, and repeating it with its idempotency key is safe.
    """


class LeaseLost(Exception):  # noqa: N818
    """Another controller leads; what this one decided was not written."""


class Conflict(Exception):  # noqa: N818
    """The request contradicts what is there: a taken name, a job that has ended, a key used for something else."""


class NotFound(Exception):  # noqa: N818
    """There is no such row."""
