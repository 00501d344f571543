"""The fleet: sites, pools of one node shape, phases, outages and supply contracts."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from watteau.domain.tenants import Tenant
from watteau.domain.units import ContractId, PoolId, SiteId, TenantId, from_epoch_s, to_epoch_s

#: Some hundred times the largest fleet known, small enough for arrays.
MOST_FLEET_NODES = 1_000_000
MOST_FLEET_GPUS = 10_000_000
#: Above these the integers of the hourly books could overflow: the nodes of one site, busy; of all, with their PUE.
MOST_SITE_MW = 1_500
MOST_FLEET_MW = 3_000


class Engine(StrEnum):
    """What runs the jobs at a site."""

    SIMULATED = "simulated"
    LOCAL = "local"
    SLURM = "slurm"
    RAY = "ray"
    KUBERNETES = "kubernetes"


class Mode(StrEnum):
    """How far Watteau goes at a site: read only, decide without effect, or dispatch."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    DRIVE = "drive"


class Technology(StrEnum):
    """What a supply contract's plant is; the names are those of the capacity-factor columns."""

    SOLAR = "solar"
    WIND_ONSHORE = "wind_onshore"
    WIND_OFFSHORE = "wind_offshore"
    HYDRO_RUN_OF_RIVER = "hydro_run_of_river"
    BASELOAD = "baseload"


@dataclass(frozen=True, slots=True)
class Pue:
    """Power usage effectiveness (ISO/IEC 30134-2): site energy over IT energy, by outdoor temperature.

    A constant PUE has one point. Between points it is linear, outside them flat.
    """

    temperature_c: tuple[float, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.value or len(self.value) != len(self.temperature_c):
            raise ValueError("a PUE needs one value for each temperature, and at least one")
        if any(not 1.0 <= v <= 3.0 for v in self.value):
            raise ValueError("a PUE lies between 1.0 and 3.0")
        if not all(math.isfinite(t) for t in self.temperature_c):
            raise ValueError("the temperatures of a PUE curve must be finite")
        if any(b <= a for a, b in zip(self.temperature_c, self.temperature_c[1:], strict=False)):
            raise ValueError("the temperatures of a PUE curve must rise")

    @staticmethod
    def constant(value: float) -> "Pue":
        """The same PUE at every temperature."""
        return Pue(temperature_c=(0.0,), value=(value,))

    @property
    def is_constant(self) -> bool:
        """Whether the outdoor temperature matters."""
        return len(self.value) == 1


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one shape at one site. Powers are of a whole node: idle, under a typical AI load, and at most."""

    id: PoolId
    gpu_model: str
    gpus_per_node: int
    cpu_cores: int
    memory_gib: int
    mig_capable: bool
    node_idle_w: int
    node_typical_w: int
    node_max_w: int
    nodes_per_block: int

    def __post_init__(self) -> None:
        if not 0 < self.node_idle_w <= self.node_typical_w <= self.node_max_w:
            raise ValueError(f"pool {self.id}: powers must satisfy 0 < idle <= typical <= max")
        if self.gpus_per_node < 0 or min(self.cpu_cores, self.memory_gib, self.nodes_per_block) < 1:
            raise ValueError(f"pool {self.id}: cores, memory and nodes per block must be at least 1, GPUs not negative")


@dataclass(frozen=True, slots=True)
class Phase:
    """Capacity that opens on a date: so many nodes of each named pool."""

    name: str
    opens: datetime
    nodes: tuple[tuple[PoolId, int], ...]

    def __post_init__(self) -> None:
        to_epoch_s(self.opens)  # refuses a time without a zone
        if not self.nodes or any(count < 1 for _, count in self.nodes):
            raise ValueError(f"phase {self.name}: a phase opens at least one node of each pool that it names")


@dataclass(frozen=True, slots=True)
class Outage:
    """A planned outage [start, end) of some pools of a site (all of them when none is named)."""

    start: datetime
    end: datetime
    pools: tuple[PoolId, ...]
    reason: str

    def __post_init__(self) -> None:
        if to_epoch_s(self.end) <= to_epoch_s(self.start):
            raise ValueError(f"outage {self.reason}: the end must come after the start")


def merged(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same time as windows that neither overlap nor touch, sorted; empty ones are left out."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(window for window in windows if window[0] < window[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


@dataclass(frozen=True, slots=True)
class SlurmAccess:
    """How a Slurm cluster is reached: by slurmrestd when `rest_url` is given, otherwise by its commands.

    `folder` lies on storage that every node sees: jobs write their output there, and a mark of their start and end.
    """

    user: str  # whose jobs Watteau's are there
    folder: str
    rest_url: str = ""
    token_file: str = ""
    token_command: tuple[str, ...] = ()  # prints a token, as `scontrol token` does
    command_prefix: tuple[str, ...] = ()  # before each command, for example ("ssh", "login1")
    folder_here: str = ""  # the same folder as this machine sees it; "": it does not
    partition: str = ""  # "": the cluster's default; so with the next two
    account: str = ""
    qos: str = ""
    poll_s: float = 2.0
    nodes: tuple[tuple[PoolId, str], ...] = ()  # which nodes a pool is, as a host list: ("hgx", "gpu[001-100]")
    accounts: tuple[tuple[str, TenantId], ...] = ()  # who pays for an account's jobs
    tenant: TenantId | None = None  # who pays for the other ones; None: the account's own name, else the root

    def __post_init__(self) -> None:
        if self.rest_url and not (self.token_file or self.token_command):
            raise ValueError("slurmrestd wants a token: token_file or token_command")
        if self.rest_url and self.command_prefix:
            raise ValueError("give rest_url or command_prefix, not both")
        if not self.folder.startswith("/"):
            raise ValueError("folder: an absolute path on storage that every node sees")
        if not 0.1 <= self.poll_s <= 3_600:
            raise ValueError("poll_s lies between 0.1 and 3,600")


@dataclass(frozen=True, slots=True)
class Site:
    """One data centre: where it is, what it may draw, what runs there."""

    id: SiteId
    name: str
    latitude: float
    longitude: float
    power_limit_kw: int
    pue: Pue
    engine: Engine
    mode: Mode
    pools: tuple[Pool, ...]
    phases: tuple[Phase, ...]
    outages: tuple[Outage, ...]
    slurm: SlurmAccess | None = None

    def __post_init__(self) -> None:
        if self.slurm is not None:
            if self.engine is not Engine.SLURM:
                raise ValueError(f"site {self.id}: a slurm table belongs to a site with engine slurm")
            unknown = {str(pool) for pool, _ in self.slurm.nodes} - {str(pool.id) for pool in self.pools}
            if unknown:
                raise ValueError(f"site {self.id}: slurm.nodes names no pool of it: {', '.join(sorted(unknown))}")
        if not (-90 <= self.latitude <= 90 and -180 <= self.longitude <= 180):
            raise ValueError(f"site {self.id}: no such place on Earth")
        if self.power_limit_kw < 0:
            raise ValueError(f"site {self.id}: a power limit is not negative")
        known = {pool.id for pool in self.pools}
        if len(known) != len(self.pools):
            raise ValueError(f"site {self.id}: two pools have the same id")
        named = {pool for phase in self.phases for pool, _ in phase.nodes}
        named.update(pool for outage in self.outages for pool in outage.pools)
        if not named <= known:
            raise ValueError(f"site {self.id}: it has no pool {', '.join(sorted(named - known))}")

    def nodes(self, pool_id: PoolId, at: datetime | None = None) -> int:
        """Nodes of a pool that are open at a time; of all phases when no time is given."""
        return sum(
            count
            for phase in self.phases
            if at is None or phase.opens <= at
            for pool, count in phase.nodes
            if pool == pool_id
        )

    def gpus(self, at: datetime | None = None) -> int:
        """GPUs of the site that are open at a time; of all phases when no time is given."""
        return sum(self.nodes(pool.id, at) * pool.gpus_per_node for pool in self.pools)

    def outages_s(self, pool_id: PoolId) -> list[tuple[int, int]]:
        """[start, end) in epoch seconds of every time in which outages close a pool: sorted, apart from each other."""
        return merged(
            (to_epoch_s(outage.start), to_epoch_s(outage.end))
            for outage in self.outages
            if not outage.pools or pool_id in outage.pools
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """Supply as produced: megawatts of one technology from start to end, at a price."""

    id: ContractId
    technology: Technology
    capacity_mw: float
    price_eur_per_mwh: float
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if to_epoch_s(self.end) <= to_epoch_s(self.start):
            raise ValueError(f"contract {self.id}: the end must come after the start")
        if not (math.isfinite(self.capacity_mw) and self.capacity_mw > 0):
            raise ValueError(f"contract {self.id}: the capacity must be above 0 MW")
        if not math.isfinite(self.price_eur_per_mwh):
            raise ValueError(f"contract {self.id}: the price must be finite")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything a fleet file says."""

    name: str
    sites: tuple[Site, ...]
    contracts: tuple[Contract, ...]
    tenants: Tenant

    @staticmethod
    def of_one_site(
        name: str,
        pools: Sequence[tuple[Pool, int]],
        *,
        power_limit_kw: int,
        pue: Pue,
        engine: Engine = Engine.SIMULATED,
        phases: tuple[Phase, ...] = (),
        outages: tuple[Outage, ...] = (),
        tenants: Tenant | None = None,
    ) -> "Fleet":
        """One driven site of that name, whose (pool, nodes) are always open; one tenant and no contract unless given.

        `phases` open more nodes later; a pool of no nodes is open only through them.
        """
        always = tuple((pool.id, nodes) for pool, nodes in pools if nodes)
        site = Site(
            id=SiteId(name),
            name=name,
            latitude=0.0,
            longitude=0.0,
            power_limit_kw=power_limit_kw,
            pue=pue,
            engine=engine,
            mode=Mode.DRIVE,
            pools=tuple(pool for pool, _ in pools),
            phases=((Phase("always", from_epoch_s(0), always), *phases) if always else phases),
            outages=outages,
        )
        return Fleet(name, (site,), (), tenants or Tenant(TenantId("everyone"), "everyone", 1, None, ()))

    def pools(self) -> Iterator[tuple[Site, Pool]]:
        """Every pool with its site, in file order; the position is the pool's index in all arrays."""
        for site in self.sites:
            for pool in site.pools:
                yield site, pool

    def gpus(self, at: datetime | None = None) -> int:
        """GPUs that are open at a time; of all phases when no time is given."""
        return sum(site.gpus(at) for site in self.sites)

    def with_tenants(self, names: Iterable[str]) -> "Fleet":
        """The fleet with every named tenant that its tree lacks, as children of the root with a share of 1."""
        known = {tenant.id for _, tenant in self.tenants.walk()}
        added = tuple(Tenant(TenantId(name), name, 1, None, ()) for name in dict.fromkeys(names) if name not in known)
        if not added:
            return self
        return replace(self, tenants=replace(self.tenants, children=self.tenants.children + added))

    def opening_times_s(self) -> list[int]:
        """Epoch seconds at which a phase opens, sorted, each once."""
        return sorted({to_epoch_s(phase.opens) for site in self.sites for phase in site.phases})
