"""Host lists as Slurm writes them: gpu[001-100],login1."""

from collections.abc import Iterable

from ClusterShell.NodeSet import NodeSet, NodeSetParseError


def expand(hosts: str) -> tuple[str, ...]:
    """The names in a host list, in its order of counting. Raises ValueError."""
    try:
        return tuple(str(node) for node in NodeSet(hosts))
    except NodeSetParseError as wrong:
        raise ValueError(f"{hosts!r} is no list of hosts like gpu[001-100],login1: {wrong}") from None


def fold(hosts: Iterable[str]) -> str:
    """The shortest list that names these hosts."""
    return str(NodeSet.fromlist(list(hosts)))
