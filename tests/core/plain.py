"""Runs cases and prints what every array of the state holds at the end, as digests: compiled, or in plain Python.

`python -m tests.core.plain SEED COUNT`, with NUMBA_DISABLE_JIT=1 for plain Python.
"""

import json
import sys
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np

from tests.core.world import Ask, World, build, fleet, fraction, gang, gpus, leaf, pool, site, tree
from watteau.core.state import Outlook
from watteau.domain.jobs import Shape, Topology
from watteau.domain.policy import POLICIES, Order, Policy, Scoring, named_policy

#: More than 32 nodes in a block, so that bits beyond the 32nd are used.
LARGE = fleet(
    site((pool("p", 2, block=40), 45), name="s", pue=1.2, later=[(25, "p", 3)], outages=[(40, 50)]),
    site((pool("q", 8, block=3, model="b200"), 2), name="t", pue=1.1, power_kw=9),
    tenants=tree(leaf("alice"), leaf("bob", 2, quota_gpus=40), leaf("carol", 3)),
)
SMALL = fleet(
    site((pool("p", 4, block=2), 3), name="s", later=[(12, "p", 1)]),
    tenants=tree(leaf("alice"), leaf("bob", 2), leaf("carol", quota_gpus=6)),
)


def policies() -> list[Policy]:
    """All that are named, and what they do not use."""
    return [
        *POLICIES.values(),
        Policy("fair and strict", reservations=0, order=Order.FAIR_TREE, rank_every_s=3),
        named_policy("hybrid", reservations=2, compress_every_s=5, rank_every_s=4, half_life_s=1),
        named_policy("conservative", step_budget=2),
        named_policy("hybrid", scoring=Scoring.BALANCED_FRAGMENTATION),
    ]


def case(random: Random, policy: Policy) -> World:
    """A drawn world, run to its end."""
    ours = random.choice([SMALL, SMALL, LARGE])
    asked = [_ask(random, ours is LARGE) for _ in range(random.randint(3, 16))]
    outlook = Outlook(0, np.array([[1.2, 1.1, 1.3]] * len(ours.sites)))
    return build(ours, asked, policy, outlook=outlook).run()


def _ask(random: Random, large: bool) -> Ask:
    runtime_s = random.choice([0, 1, 5, 10, 20, 60, 4000])
    shape = random.choice(
        [
            gpus(random.randint(1, 8)),
            gang(random.randint(2, 40 if large else 6), random.randint(1, 3), random.choice(list(Topology))),
            fraction(random.choice([100, 250, 500, 700]), random.randint(1, 3)),
            Shape(1, random.choice([0, 1000]), random.randint(0, 96_000), random.randint(0, 900_000)),
            Shape(2, 1000, gpu_models=("h100",), sites=("s",)),
        ]
    )
    estimate_s = max(1, runtime_s + random.choice([0, 0, 5, -3]))
    return Ask(
        random.randint(0, 30),
        runtime_s,
        shape,
        estimate_s,
        tenant=random.randint(1, 3),
        priority=random.choice([0, 0, 1, -5]),
        limit_s=random.choice([0, 0, estimate_s]),
    )


def digests(world: World) -> dict[str, Any]:
    """A digest of each array, and the starts in words."""
    named = {
        name: sha256(array.tobytes()).hexdigest()
        for bundle in (world.state, world.clock)
        for name, array in vars(bundle).items()
        if isinstance(array, np.ndarray) and name != "table"
    }
    return {"starts": world.starts(), "steps": int(world.clock.clock[0]["steps"]), **named}


def run_cases(seed: int, count: int) -> list[dict[str, Any]]:
    """So many worlds for each policy."""
    return [digests(case(Random(f"{seed}:{number}"), policy)) for policy in policies() for number in range(count)]


if __name__ == "__main__":
    print(json.dumps(run_cases(int(sys.argv[1]), int(sys.argv[2]))))
