"""After a crash: what was waiting is recorded before it runs, since it may be what killed the process; what is new is not."""

from __future__ import annotations

import asyncio

from genesis import App, Context, on
from tests.unit.runtime.support import Job, inside

EVENTS = 100


async def recorded(*, sent_before: bool, crashes: bool) -> tuple[set[bool], int]:
    """Whether the store knew that an event ran, when its handler began for the last time; and the commits it took in all."""
    app, known = App("shop"), dict[int, bool]()

    @app.component(key="key")
    class Till:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            known[job.n] = ctx._delivery.id in sim.world.store.head().running
            await asyncio.sleep(1)  # longer than it takes to crash

    async with app.simulate() as sim:
        jobs = [Job(f"k{n}", n) for n in range(EVENTS)]
        if sent_before:
            await inside(sim, lambda node: node.send_many(jobs))
        if crashes:
            await sim.crash()
        if not sent_before:
            await inside(sim, lambda node: node.send_many(jobs))
        await sim.settle()
        assert sim.ledger.done == EVENTS
        return set(known.values()), sim.world.history.count


async def test_what_comes_after_a_crash_is_not_recorded_and_shares_commits_as_ever() -> None:
    _, calm = await recorded(sent_before=False, crashes=False)
    known, after = await recorded(sent_before=False, crashes=True)
    assert known == {False}
    assert after <= calm + 1


async def test_what_was_waiting_at_a_crash_is_recorded_before_it_runs() -> None:
    known, _ = await recorded(sent_before=True, crashes=True)
    assert known == {True}
