"""What a machine is found to have: with no driver, and with one that a stand-in for NVML plays."""

import os
from dataclasses import dataclass
from typing import Any

import pytest

from watteau.domain.units import PoolId
from watteau.engines.machine import discover_node


class _NvmlError(Exception):
    pass


@dataclass
class _Card:
    name: str | bytes
    limit_mw: int | None = 700_000
    mig: list[int] | None = None
    broken: bool = False


class _Nvml:
    """As much of NVML as is asked; a machine without a driver fails at nvmlInit."""

    NVMLError = _NvmlError

    def __init__(self, *cards: _Card, driver: bool = True) -> None:
        self.cards, self.driver, self.shut = cards, driver, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise _NvmlError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if self.cards[index].broken:
            raise _NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return self.cards[handle].name

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}{handle}{handle}{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return type("Memory", (), {"total": 80 << 30})

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:  # noqa: N802
        limit_mw = self.cards[handle].limit_mw
        if limit_mw is None:
            raise _NvmlError("Not Supported")
        return limit_mw

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        mig = self.cards[handle].mig
        if mig is None:
            raise _NvmlError("Not Supported")
        return mig


def test_cores_and_memory_are_what_this_process_may_use() -> None:
    node = discover_node({}, _Nvml(driver=False)).node
    assert 1 <= node.cpu_cores <= len(os.sched_getaffinity(0))
    assert 1 <= node.memory_mib <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert node.node
    assert "/" not in node.node
    assert node.up


def test_without_a_driver_there_are_no_gpus() -> None:
    machine = discover_node({}, _Nvml(_Card("H100"), driver=False))
    assert (machine.node.gpus, machine.node.gpu_model, machine.gpu_ids, machine.left_out) == (0, "", (), ())


def test_a_node_has_the_gpus_of_its_most_frequent_model_and_says_what_it_leaves_out() -> None:
    nvml = _Nvml(
        _Card("T4"), _Card(b"H100", mig=[0, 0]), _Card("H100", mig=[1, 1]), _Card("H100"), _Card("?", broken=True)
    )
    machine = discover_node({}, nvml)
    assert (machine.node.gpu_model, machine.node.gpus, machine.gpu_ids) == ("H100", 2, ("1", "3"))
    assert machine.left_out == (
        "H100 2: it is in MIG mode, and only whole GPUs are used",
        "GPU 4: GPU is lost",
        "T4 0: the node's GPUs are H100",
    )
    assert nvml.shut == 1


@pytest.mark.parametrize(
    ("visible", "ids"), [("", ()), ("2,0", ("0", "2")), (" 1 ", ("1",)), ("GPU-2222", ("2",)), ("GPU-", ())]
)
def test_only_what_the_server_itself_may_see_is_offered(visible: str, ids: tuple[str, ...]) -> None:
    machine = discover_node({"CUDA_VISIBLE_DEVICES": visible}, _Nvml(*[_Card("H100")] * 3))
    assert machine.gpu_ids == ids
    assert len(machine.left_out) == 3 - len(ids)


def test_a_machine_with_gpus_is_a_pool_of_one_node() -> None:
    machine = discover_node({}, _Nvml(_Card("H100", mig=[0, 0]), _Card("H100", None, [0, 0])))
    pool = machine.pool(PoolId("here"))
    assert (pool.gpus_per_node, pool.gpu_model, pool.mig_capable, pool.nodes_per_block) == (2, "H100", True, 1)
    assert 700 < pool.node_typical_w < pool.node_max_w


def test_a_machine_without_gpus_is_a_pool_of_cores() -> None:
    pool = discover_node({}, _Nvml(driver=False)).pool(PoolId("here"))
    assert (pool.gpus_per_node, pool.gpu_model) == (0, "")
