"""The nodes that a site's engine shows and the pools of the fleet file: which is which, and where they differ."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from watteau.domain.fleet import Pool, Site
from watteau.domain.sites import Difference, NodeState, Partition, SiteNode
from watteau.domain.units import PoolId
from watteau.engines.contract import NodeCapacity, SiteView

NOT_LISTED = "the site's scheduler no longer lists it"
_MIB_PER_GIB = 1024
#: A machine of 1 TiB shows a little less: firmware and kernel keep some. Slurm's RealMemory is often set lower still.
_MEMORY_MARGIN = 0.1
_MOST_NAMES = 8


def assign(site: Site, view: SiteView, known: Sequence[SiteNode]) -> tuple[SiteNode, ...]:
    """Which node of which pool each of the engine's nodes is, by name.

    A number that was once given stays, also while the node is not listed. New nodes get the lowest free numbers of the
    pool that names them in `slurm.nodes`, else of the first pool of their shape and GPU model; what has no place in any
    pool is left out, and is a difference.
    """
    before = {node.node: node for node in known}
    there = {capacity.node: capacity for capacity in view.nodes}
    outside = _outside(site, view)
    taken: dict[PoolId, set[int]] = defaultdict(set)
    for node in known:
        taken[node.pool].add(node.number)
    wanted = _named_pools(site)
    result = []
    for name, capacity in sorted(there.items()):
        if (old := before.get(name)) is not None:
            pool_id, number = old.pool, old.number
        else:
            pool = next((pool for pool in site.pools if _belongs(pool, capacity, wanted)), None)
            free = () if pool is None else (n for n in range(site.nodes(pool.id)) if n not in taken[pool.id])
            if pool is None or (room := next(iter(free), None)) is None:
                continue
            pool_id, number = pool.id, room
            taken[pool_id].add(number)
        state, why = capacity.state, capacity.why_down
        if state is NodeState.UP and not capacity.up:
            state = NodeState.DOWN
        elif state is NodeState.UP and (why := outside.get(name, "")):
            state = NodeState.RESERVED
        result.append(SiteNode(site.id, name, pool_id, number, state, why))
    gone = [replace(node, state=NodeState.DOWN, why=NOT_LISTED) for node in known if node.node not in there]
    return tuple(sorted([*result, *gone], key=lambda node: (node.pool, node.number)))


def differences(site: Site, view: SiteView, nodes: Sequence[SiteNode]) -> list[Difference]:
    """What the fleet file and the engine say differently, the largest things first."""
    there = {node.node: node for node in view.nodes}
    found = [*_partition_differences(site, view)]
    for pool in site.pools:
        its = [there[node.node] for node in nodes if node.pool == pool.id and node.node in there]
        found += _pool_differences(site, pool, its)
    placed = {node.node for node in nodes}
    homeless = defaultdict(list)
    for node in view.nodes:
        if node.node not in placed:
            homeless[_kind(node)].append(node.node)
    for kind, names in sorted(homeless.items()):
        found.append(
            Difference(
                f"nodes {_listed(names)}",
                "in no pool",
                "no room for them",
                kind,
                "add a pool of this shape, or open more nodes of one in a phase",
            )
        )
    out = [node for node in nodes if node.state is not NodeState.UP]
    for (state, why), names in sorted(_grouped(out).items()):
        found.append(
            Difference(
                f"nodes {_listed(names)}",
                "takes no jobs",
                "open",
                f"{state.value}: {why}" if why else state.value,
                "none is needed: nothing is placed there until the site opens them",
            )
        )
    return found


def limits(view: SiteView) -> tuple[Partition, ...]:
    """The partitions as they bind jobs, without the nodes' names: what must be known before a job is sent there."""
    return tuple(replace(partition, nodes=()) for partition in sorted(view.partitions, key=lambda its: its.name))


def closed_windows(
    view: SiteView, nodes: Sequence[SiteNode], ours: Collection[str], now_s: int
) -> list[tuple[int, int, PoolId]]:
    """(start_s, end_s, pool) of every reservation to come that closes a whole pool; `ours`: our user and account."""
    pools: dict[PoolId, set[str]] = defaultdict(set)
    for node in nodes:
        if node.why != NOT_LISTED:
            pools[node.pool].add(node.node)
    return sorted(
        (its.start_s, its.end_s, pool)
        for its in view.reservations
        if its.start_s > now_s and not (set(ours) & {*its.users, *its.accounts} and "MAINT" not in its.flags)
        for pool, names in pools.items()
        if names and names <= set(its.nodes)
    )


def _named_pools(site: Site) -> Mapping[str, PoolId]:
    """node -> pool, where the fleet file names a pool's nodes."""
    if site.slurm is None or not site.slurm.nodes:
        return {}
    from watteau.engines.slurm.hosts import expand  # only who names nodes waits for the library

    return {host: pool for pool, hosts in site.slurm.nodes for host in expand(hosts)}


def _belongs(pool: Pool, node: NodeCapacity, wanted: Mapping[str, PoolId]) -> bool:
    if node.node in wanted:
        return wanted[node.node] == pool.id
    if pool.id in wanted.values():  # its nodes are named, and this is none of them
        return False
    return pool.gpus_per_node == node.gpus and (not node.gpus or _is_model(pool.gpu_model, node))


def _is_model(model: str, node: NodeCapacity) -> bool:
    """Whether a node may be of this GPU model. One that does not say its model may be of any."""
    return not node.gpu_model or model.casefold() in {word.casefold() for word in (node.gpu_model, *node.features)}


def _outside(site: Site, view: SiteView) -> dict[str, str]:
    """node -> why no job of ours gets there, of nodes that no partition that we may use has."""
    if not view.partitions:
        return {}
    wanted = site.slurm.partition if site.slurm else ""
    usable = [its for its in view.partitions if (its.name == wanted if wanted else its.is_default) and its.up]
    if not usable:
        why = f"partition {wanted} is not there, or down" if wanted else "no default partition is up"
        return {node.node: why for node in view.nodes}
    inside = {node for its in usable for node in its.nodes}
    why = f"not in partition {', '.join(its.name for its in usable)}"
    return {node.node: why for node in view.nodes if node.node not in inside}


def _partition_differences(site: Site, view: SiteView) -> Iterable[Difference]:
    wanted = site.slurm.partition if site.slurm else ""
    names = [its.name for its in view.partitions]
    if not names:
        return
    if wanted and wanted not in names:
        yield Difference(
            f"partition {wanted}", "not there", wanted, f"there are {_listed(names)}", "change sites.slurm.partition"
        )
    elif not wanted and not any(its.is_default for its in view.partitions):
        yield Difference(
            "partitions", "none is the default", "the default", _listed(names), "name one in sites.slurm.partition"
        )
    for its in view.partitions:
        if (its.name == wanted if wanted else its.is_default) and not its.up:
            yield Difference(f"partition {its.name}", "takes no jobs", "up", "down", "ask who runs the site")


def _pool_differences(site: Site, pool: Pool, its: Sequence[NodeCapacity]) -> Iterable[Difference]:
    where = f"pool {pool.id}"
    if len(its) != site.nodes(pool.id):
        yield Difference(
            where,
            "nodes",
            str(site.nodes(pool.id)),
            str(len(its)),
            "change the phases of the fleet file; nothing is placed on nodes that are not there",
        )
    for what, ours, least, has_of in (
        ("GPUs per node", pool.gpus_per_node, pool.gpus_per_node, [node.gpus for node in its]),
        ("cores per node", pool.cpu_cores, pool.cpu_cores, [node.cpu_cores for node in its]),
        (
            "memory per node, GiB",
            pool.memory_gib,
            math.ceil((1 - _MEMORY_MARGIN) * pool.memory_gib),
            [node.memory_mib // _MIB_PER_GIB for node in its],
        ),
    ):
        odd: dict[int, list[str]] = defaultdict(list)
        for node, has in zip(its, has_of, strict=True):
            if not least <= has <= ours:
                odd[has].append(node.node)
        for has, names in sorted(odd.items()):
            yield Difference(
                f"{where}, nodes {_listed(names)}",
                what,
                str(ours),
                str(has),
                "change the pool, or give these nodes a pool of their own",
            )
    models = defaultdict(list)
    for node in its:
        if pool.gpus_per_node and not _is_model(pool.gpu_model, node):
            models[node.gpu_model].append(node.node)
    for model, names in sorted(models.items()):
        yield Difference(
            f"{where}, nodes {_listed(names)}", "GPU model", pool.gpu_model, model, "change the pool's gpu_model"
        )
    if pool.gpus_per_node and its and not any(node.gpu_model for node in its):
        yield Difference(
            where,
            "GPU model",
            pool.gpu_model,
            "not said",
            "none is needed; name the type in the site's gres.conf, or as a node feature, to have it checked",
        )


def _grouped(nodes: Iterable[SiteNode]) -> dict[tuple[NodeState, str], list[str]]:
    groups: dict[tuple[NodeState, str], list[str]] = defaultdict(list)
    for node in nodes:
        groups[node.state, node.why].append(node.node)
    return groups


def _kind(node: NodeCapacity) -> str:
    gpus = f"{node.gpus} x {node.gpu_model or 'GPU'}" if node.gpus else "no GPU"
    return f"{gpus}, {node.cpu_cores} cores, {node.memory_mib // _MIB_PER_GIB} GiB"


def _listed(names: Sequence[str]) -> str:
    """A few by name, and how many more."""
    shown = sorted(names)
    more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
    return ", ".join(shown[:_MOST_NAMES]) + more
