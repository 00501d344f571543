"""What this machine has: cores, memory and GPUs that this process may use, as a node and as a pool of a fleet."""

import contextlib
import os
import platform
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from watteau.domain.fleet import Pool
from watteau.domain.units import PoolId
from watteau.engines.contract import NodeCapacity

#: Rough powers where nothing says better: of a whole machine that does nothing, of a core at work, of a GPU.
_IDLE_W, _CORE_W, _GPU_IDLE_W, _GPU_MAX_W = 60, 8, 40, 300
_TYPICAL_SHARE = 0.8  # of the GPU's power limit, under a typical AI load


@dataclass(frozen=True, slots=True)
class Gpu:
    """One whole GPU: `id` is what CUDA_VISIBLE_DEVICES calls it when CUDA_DEVICE_ORDER is PCI_BUS_ID."""

    id: str
    uuid: str
    model: str
    memory_mib: int
    power_limit_w: int  # 0: not known
    mig_capable: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine. `gpus` are of one model; `left_out` says in a phrase each what cannot be used, and why."""

    node: NodeCapacity
    gpus: tuple[Gpu, ...]
    left_out: tuple[str, ...]

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """What the local engine needs to know of them."""
        return tuple(gpu.id for gpu in self.gpus)

    def pool(self, id: PoolId) -> Pool:
        """The machine as a pool of one node, its powers guessed from its parts where it does not tell them."""
        gpu_max_w = sum(gpu.power_limit_w or _GPU_MAX_W for gpu in self.gpus)
        idle_w = _IDLE_W + _GPU_IDLE_W * len(self.gpus)
        max_w = max(idle_w, _IDLE_W + _CORE_W * self.node.cpu_cores + gpu_max_w)
        typical_w = _IDLE_W + _CORE_W * self.node.cpu_cores + round(_TYPICAL_SHARE * gpu_max_w)
        return Pool(
            id=id,
            gpu_model=self.node.gpu_model,
            gpus_per_node=self.node.gpus,
            cpu_cores=self.node.cpu_cores,
            memory_gib=max(1, self.node.memory_mib // 1024),
            mig_capable=bool(self.gpus) and all(gpu.mig_capable for gpu in self.gpus),
            node_idle_w=idle_w,
            node_typical_w=max(idle_w, min(typical_w, max_w)),
            node_max_w=max_w,
            nodes_per_block=1,
        )


def discover_node(environment: Mapping[str, str] | None = None, nvml: Any = None) -> Machine:
    """This machine, as far as this process may use it: its affinity, its cgroup's limits, CUDA_VISIBLE_DEVICES.

    GPUs are found through NVML (the extra `gpu`); without the library or a driver there are none. Those in MIG mode
    are left out, and of several models all but the most frequent one: a node has GPUs of one model.
    """
    found, left_out = _gpus(nvml if nvml is not None else _nvml())
    allowed = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        found, hidden = _visible(found, allowed)
        left_out += [f"{gpu.model} {gpu.id}: not in CUDA_VISIBLE_DEVICES" for gpu in hidden]
    model = min(Counter(gpu.model for gpu in found).items(), key=lambda each: (-each[1], each[0]), default=("", 0))[0]
    left_out += [f"{gpu.model} {gpu.id}: the node's GPUs are {model}" for gpu in found if gpu.model != model]
    gpus = tuple(gpu for gpu in found if gpu.model == model)
    node = NodeCapacity(
        node=re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()) or "localhost",
        gpu_model=model,
        gpus=len(gpus),
        cpu_cores=_cores(),
        memory_mib=_memory_mib(),
    )
    return Machine(node, gpus, tuple(left_out))


def _visible(gpus: list[Gpu], allowed: str) -> tuple[list[Gpu], list[Gpu]]:
    """Those that a CUDA_VISIBLE_DEVICES names, by number or by (the beginning of) their UUID; and the others."""
    words = [word.strip() for word in allowed.split(",") if word.strip()]
    named = [
        gpu for gpu in gpus if any(word == gpu.id or (len(word) > 4 and gpu.uuid.startswith(word)) for word in words)
    ]
    return named, [gpu for gpu in gpus if gpu not in named]


# ---- GPUs ----------------------------------------------------------------------------------------------------------


def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _gpus(nvml: Any) -> tuple[list[Gpu], list[str]]:
    if nvml is None:
        return [], []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return [], []
    try:
        found: list[Gpu] = []
        left_out: list[str] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                gpu, in_mig_mode = _gpu(nvml, index)
            except nvml.NVMLError as failed:
                left_out.append(f"GPU {index}: {failed}")
                continue
            if in_mig_mode:
                left_out.append(f"{gpu.model} {gpu.id}: it is in MIG mode, and only whole GPUs are used")
            else:
                found.append(gpu)
        return found, left_out
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> tuple[Gpu, bool]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    gpu = Gpu(
        id=str(index),  # NVML counts in the order of the PCI bus
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        model=_text(nvml.nvmlDeviceGetName(handle)),
        memory_mib=int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20,
        power_limit_w=0,
        mig_capable=False,
    )
    in_mig_mode = False
    with contextlib.suppress(nvml.NVMLError):  # not every GPU can tell or limit its power
        gpu = replace(gpu, power_limit_w=round(nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000))
    with contextlib.suppress(nvml.NVMLError):  # nor can every GPU be cut up
        in_mig_mode = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
        gpu = replace(gpu, mig_capable=True)
    return gpu, in_mig_mode


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said


# ---- cores and memory ----------------------------------------------------------------------------------------------


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    for folder in _cgroups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            cores = min(cores, int(quota) // int(period))  # "max" is not a number, and no limit
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                cores = min(cores, quota_us // int((folder / "cpu.cfs_period_us").read_text()))
    return max(1, cores)


def _memory_mib() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                memory = min(memory, int((folder / name).read_text()))
    return max(1, memory >> 20)


def _cgroups(controller: str) -> list[Path]:
    """The folders, ours and those above it, that may limit us: of cgroup v2, and of v1 where it has the controller."""
    found: list[Path] = []
    try:
        mounts = [line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            for left, _, right in mounts:
                root, mounted = left.split()[3:5]
                kind, _, options = right.split(" ", 2)
                fits = kind == "cgroup" and controller in options.split()[-1].split(",")
                if (fits if controllers else kind == "cgroup2") and (own + "/").startswith(root.rstrip("/") + "/"):
                    below = Path(own).relative_to(root)
                    found += [Path(mounted) / part for part in (below, *below.parents)]
    except (OSError, ValueError):
        pass
    return found
