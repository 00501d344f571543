"""Divisible shapes: cut into the fewest equal workers that some allowed pool holds together."""

import pytest

from tests.core.world import fleet, nodes, pool, site
from watteau.core.state import cut_for_fleet
from watteau.domain.fleet import Fleet
from watteau.domain.jobs import Shape

LARGE_AND_SMALL = fleet(site((pool("large", 16), 1), (pool("small", 8, model="h200"), 100)))
CORES = fleet(site((pool("few", 0, cores=64, memory_gib=64), 9), (pool("many", 0, cores=96, memory_gib=512), 2)))


def whole(gpus: int, cpu_milli: int = 0, memory_mib: int = 0, models: tuple[str, ...] = ()) -> Shape:
    return Shape(1, 1000 * gpus, cpu_milli, memory_mib, gpu_models=models, divisible=True)


@pytest.mark.parametrize(
    ("machine", "shape", "workers", "each"),
    [
        (nodes(4, 8), whole(8), 1, (8000, 0, 0)),
        (nodes(4, 8), whole(12), 2, (6000, 0, 0)),
        (nodes(4, 8), whole(11), 11, (1000, 0, 0)),
        (LARGE_AND_SMALL, whole(16), 1, (16000, 0, 0)),
        (LARGE_AND_SMALL, whole(32), 4, (8000, 0, 0)),
        (LARGE_AND_SMALL, whole(32, models=("h100",)), 1, (32000, 0, 0)),  # too much for it
        (nodes(9, 8), whole(5, 200_000), 5, (1000, 40_000, 0)),
        (nodes(9, 8), whole(6, 200_001, 2_000_001), 3, (2000, 66_667, 666_667)),
        (nodes(2, 8), whole(5, 900_000), 1, (5000, 900_000, 0)),
        (CORES, whole(0, 150_000), 2, (0, 75_000, 0)),
        (CORES, whole(0, 300_000), 5, (0, 60_000, 0)),
        (CORES, whole(0, 60_000, 600_000), 2, (0, 30_000, 300_000)),
        (CORES, whole(0, 9_000_000), 1, (0, 9_000_000, 0)),
        (nodes(4, 8), Shape(1, 500, 10, divisible=True), 1, (500, 10, 0)),
        (nodes(4, 8), whole(999_999_937), 1, (999_999_937_000, 0, 0)),  # a prime: found at once all the same
        (nodes(4, 8), whole(8, models=("mi300x",)), 1, (8000, 0, 0)),
    ],
)
def test_the_cut_is_the_first_that_a_pool_holds(
    machine: Fleet, shape: Shape, workers: int, each: tuple[int, int, int]
) -> None:
    made = cut_for_fleet([shape], machine)[0]
    assert (made.workers, made.gpu_milli, made.cpu_milli, made.memory_mib) == (workers, *each)
    assert not made.divisible
