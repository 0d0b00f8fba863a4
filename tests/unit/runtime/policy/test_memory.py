"""What a policy keeps for each shard."""

from __future__ import annotations

import tracemalloc

from tests.unit.runtime.policy.support import Dependency, policy

SHARDS = 200


async def test_a_shard_that_was_called_once_costs_less_than_thirty_kilobytes() -> None:
    operation = policy().protect(shard=lambda which: which)
    dependency = Dependency()
    tracemalloc.start()
    try:
        for which in range(SHARDS):
            await operation.call(dependency.call, which)
        assert tracemalloc.get_traced_memory()[0] / SHARDS < 30 << 10
    finally:
        tracemalloc.stop()
