"""States: what is stored of them, and how they change with the code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from genesis import App, Context, DefinitionError, GenesisError, Node, Retry, State, StoreError, migrate, on
from genesis.core.errors import StoreChangedError, StoreNewerError
from genesis.core.message import StateMeta
from genesis.core.ports import Answer, Batch, Head
from tests.unit.runtime.support import Disk, Job, Log, inside, until


def counter(state: type[State], name: str = "till") -> tuple[App, type]:
    """An application whose component adds to the field `count` of a state."""
    app = App("shop")

    @app.component(name=name, key="key", state=state)
    class Till:
        @on(Job)
        async def serve(self, job: Job, state: Any, ctx: Context) -> None:
            state.count += job.n

    return app, Till


class V1(State):
    count: int = 0


class V2(State, version=2):
    count: int = 0
    name: str = ""

    @migrate(from_version=1)
    def from_1(old: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]  # noqa: N805
        return {"count": old["count"], "name": f"was {old['count']}"}


class V3(State, version=3):
    count: int = 0
    title: str = ""

    @migrate(from_version=1)
    def from_1(old: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]  # noqa: N805
        return {"count": old["count"], "name": f"was {old['count']}"}

    @migrate(from_version=2)
    def from_2(old: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]  # noqa: N805
        return {"count": old["count"], "title": old["name"].title()}


async def handle(disk: Disk, app: App, *jobs: Job) -> None:
    async with disk.node(app) as node:
        before = node.status().ledger.done
        for job in jobs:
            await node.send(job)
        await until(lambda: node.status().ledger.done == before + len(jobs))


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_key_without_a_state_begins_with_the_defaults() -> None:
    app, till = counter(V1)
    async with app.simulate() as sim:
        assert sim.state(till, "nobody") == V1()


async def test_what_a_reader_does_to_a_state_is_gone() -> None:
    app, till = counter(V1)
    async with app.simulate() as sim:
        await sim.send(Job("a", 5))
        await sim.settle()
        sim.state(till, "a").count = 99
        assert sim.state(till, "a").count == 5


async def test_a_state_is_asked_of_a_component_that_has_one() -> None:
    app, _ = counter(V1)

    class Stranger:
        pass

    async with app.simulate() as sim:
        with pytest.raises(GenesisError, match="Stranger is no component with a state of shop"):
            sim.state(Stranger, "a")


async def test_all_states_of_a_component_can_be_read_in_pages() -> None:
    app, till = counter(V1)

    async def read(node: Node, **how: Any) -> dict[str, int]:
        return {key: state.count async for key, state in node.scan(till, **how)}

    async with app.simulate() as sim:
        for n in range(30):
            await sim.send(Job(f"k{n:02d}", n + 1))
        await sim.send(Job("other/slash", 7))
        await sim.settle()
        every = {f"k{n:02d}": n + 1 for n in range(30)}
        for page in (1, 7, 256):
            assert await inside(sim, lambda node, page=page: read(node, page=page)) == every | {"other/slash": 7}
        assert list(await inside(sim, read)) == sorted([*every, "other/slash"])
        assert await inside(sim, lambda node: read(node, prefix="k1")) == {f"k{n}": n + 1 for n in range(10, 20)}
        assert await inside(sim, lambda node: read(node, prefix="zz")) == {}


async def test_a_handler_that_changes_nothing_writes_nothing() -> None:
    app, till = counter(V1)
    disk = Disk()
    async with disk.node(app) as node:
        written, commit = list[str](), disk.engine.commit

        async def spy(partition: int, head: Head, batch: Batch) -> Answer:
            written.extend(batch.state)
            return await commit(partition, head, batch)

        disk.engine.commit = spy  # type: ignore[method-assign]
        for n in (5, 0, 0, 1):
            await node.send(Job("a", n))
            await asyncio.sleep(0.1)
        assert written == ["till/a", "till/a"]
        assert (await node.state(till, "a")).count == 6


async def test_two_components_keep_their_states_apart() -> None:
    app = App("shop")

    @app.component(key="key", state=Log)
    class Left:
        @on(Job)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(job.n)

    @app.component(single=True, state=Log)
    class Right:
        @on(Job)
        async def note(self, job: Job, log: Log, ctx: Context) -> None:
            log.seen.append(-job.n)

    async with app.simulate() as sim:
        await sim.send(Job("a", 1))
        await sim.send(Job("b", 2))
        await sim.settle()
        assert (sim.state(Left, "a").seen, sim.state(Left, "b").seen, sim.state(Right).seen) == ([1], [2], [-1, -2])


async def test_a_single_component_serves_one_event_at_a_time() -> None:
    app, busy = App("shop"), False

    @app.component(single=True)
    class Desk:
        @on(Job)
        async def serve(self, job: Job, ctx: Context) -> None:
            nonlocal busy
            assert not busy
            busy = True
            await asyncio.sleep(0.01)
            busy = False

    async with app.simulate() as sim:
        for n in range(20):
            await sim.send(Job(str(n), n))
        await sim.settle()
        assert sim.ledger.done == 20


async def test_a_hot_key_adds_up_while_its_commits_are_under_way() -> None:
    app, till = counter(V1)
    async with app.simulate() as sim:
        await inside(sim, lambda node: node.send_many([Job("a", 1)] * 2000))
        await sim.settle()
        assert sim.state(till, "a").count == 2000


async def test_states_that_left_memory_are_read_again() -> None:
    app, till = counter(V1)
    disk = Disk()
    async with disk.node(app, cache_bytes=1000) as node:
        for _ in range(3):
            await node.send_many([Job(f"k{n}", 1) for n in range(100)])
            await until(lambda: node.status().ledger.waiting == 0)
        await asyncio.sleep(0.1)
        assert [state.count async for _, state in node.scan(till)] == [3] * 100


# --- versions -------------------------------------------------------------------------------------------------------


async def test_a_state_is_migrated_when_it_is_read_and_stored_when_it_changes() -> None:
    disk = Disk()
    old, _ = counter(V1)
    await handle(disk, old, Job("a", 5), Job("b", 6))

    new, till = counter(V2)
    async with disk.node(new) as node:
        assert await node.state(till, "a") == V2(5, "was 5")
        await node.send(Job("a", 1))
        await until(lambda: node.status().ledger.done == 3)
        await asyncio.sleep(0.1)
        assert await node.state(till, "a") == V2(6, "was 5")
        assert [state async for _, state in node.scan(till)] == [V2(6, "was 5"), V2(6, "was 6")]
    assert [version for version, _ in disk.storage.partitions[0].state.rows.values()] == [2, 1]


async def test_steps_of_several_versions_follow_each_other() -> None:
    disk = Disk()
    await handle(disk, counter(V1)[0], Job("a", 5), Job("b", 6))
    await handle(disk, counter(V2)[0], Job("b", 1))
    app, till = counter(V3)
    async with disk.node(app) as node:
        assert await node.state(till, "a") == V3(5, "Was 5")
        assert await node.state(till, "b") == V3(7, "Was 6")


async def test_a_state_that_changed_without_a_new_version_is_refused_with_the_difference_and_the_line_to_write() -> None:
    class Changed(State):
        count: str = ""
        note: str = ""

    disk = Disk()
    await handle(disk, counter(V1)[0], Job("a", 5))
    app, _ = counter(Changed)
    with pytest.raises(StoreChangedError) as refusal:
        async with disk.node(app):
            pytest.fail("it runs")
    text = str(refusal.value)
    assert "Changed" in text
    assert "changed and is still version 1; nothing was touched" in text
    assert "    - count: int\n" in text
    assert "    + count: str\n" in text
    assert "    + note: str\n" in text
    assert "class Changed(State, version=2):" in text
    assert "@migrate(from_version=1)" in text
    assert f"{__file__}:" in text

    app, till = counter(V1)  # and nothing was touched
    await handle(disk, app, Job("a", 1))
    async with disk.node(app) as node:
        assert (await node.state(till, "a")).count == 6


async def test_a_changed_struct_inside_a_state_is_a_change_too() -> None:
    import msgspec

    def of(kind: type) -> type[State]:
        inner = msgspec.defstruct("Inner", [("x", kind, kind())])
        outer: type[State] = StateMeta(
            "Outer",
            (State,),
            {
                "__annotations__": {"count": int, "inner": inner},
                "count": 0,
                "inner": msgspec.field(default_factory=inner),
                "__module__": __name__,
            },
        )
        return outer

    disk = Disk()
    await handle(disk, counter(of(int))[0], Job("a", 5))
    await handle(disk, counter(of(int))[0], Job("a", 5))
    with pytest.raises(StoreChangedError, match="a nested struct changed"):
        async with disk.node(counter(of(str))[0]):
            pytest.fail("it runs")


async def test_a_missing_step_is_named() -> None:
    class Gap(State, version=3):
        count: int = 0

        @migrate(from_version=2)
        def from_2(old: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]  # noqa: N805
            return old

    disk = Disk()
    await handle(disk, counter(V1)[0], Job("a", 5))
    with pytest.raises(StoreChangedError, match=r"Gap(.|\n)*version 1(.|\n)*@migrate\(from_version=1\)"):
        async with disk.node(counter(Gap)[0]):
            pytest.fail("it runs")


async def test_a_state_of_newer_code_is_refused() -> None:
    disk = Disk()
    await handle(disk, counter(V2)[0], Job("a", 5))
    with pytest.raises(StoreNewerError, match="version 1, the store holds version 2: run the newer code"):
        async with disk.node(counter(V1)[0]):
            pytest.fail("it runs")
    await handle(disk, counter(V2)[0], Job("a", 5))


async def test_a_state_without_a_component_in_the_code_stays_in_the_store() -> None:
    disk = Disk()
    await handle(disk, counter(V1)[0], Job("a", 5))
    await handle(disk, counter(V1, name="other")[0], Job("a", 1))
    app, till = counter(V1)
    async with disk.node(app) as node:
        assert (await node.state(till, "a")).count == 5


async def test_a_migration_that_fails_keeps_the_work_waiting_until_the_code_is_right() -> None:
    def fixed(old: dict[str, Any]) -> dict[str, Any]:
        return old

    def broken(old: dict[str, Any]) -> dict[str, Any]:
        return {"count": old["cuont"]}

    def second(step: Any) -> type[State]:
        class Second(State, version=2):
            count: int = 0
            from_1 = migrate(from_version=1)(step)

        return Second

    disk = Disk()
    await handle(disk, counter(V1)[0], Job("a", 5))
    app, till = counter(second(broken))
    async with disk.node(app) as node:
        await node.send(Job("a", 1))
        await asyncio.sleep(300)
        assert (node.status().ledger.dead, node.status().ledger.waiting) == (0, 1)
        with pytest.raises(StoreError, match="migration from version 1 to 2 failed: KeyError"):
            await node.state(till, "a")
    app, till = counter(second(fixed))
    async with disk.node(app) as node:
        await until(lambda: node.status().ledger.done == 2)
        await asyncio.sleep(0.1)
        assert (await node.state(till, "a")).count == 6


# --- definitions ----------------------------------------------------------------------------------------------------


def test_states_that_cannot_begin_empty_or_do_not_fit_are_refused_when_they_are_written() -> None:
    class Bare(State):
        count: int

    class Wrong(State):
        count: int = "0"  # type: ignore[assignment]

    for state, says in (
        (Bare, r"cannot begin empty.*\n    write: count: int = \.\.\."),
        (Wrong, "a default of Wrong does not fit"),
    ):
        with pytest.raises(DefinitionError, match=says):
            counter(state)
    with pytest.raises(DefinitionError, match="version is 0"):

        class Zero(State, version=0):
            pass

    with pytest.raises(DefinitionError, match=r"migrates from version 2(.|\n)*write: class Ahead\(State, version=3\)"):

        class Ahead(State, version=2):
            @migrate(from_version=2)
            def from_2(old: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]  # noqa: N805
                return old


async def test_a_state_class_may_be_renamed() -> None:
    class Tally(State):
        count: int = 0

    class Count(State):
        count: int = 0

    def shop(state: type[State]) -> App:
        app = App("shop")

        @app.component(name="till", key="key", state=state)
        class Till:
            @on(Job)
            async def serve(self, job: Job, state: State, ctx: Context) -> None:
                pass

        return app

    disk = Disk()
    async with disk.node(shop(Tally)):
        pass
    async with disk.node(shop(Count)):
        pass


async def test_a_state_that_does_not_fit_its_class_fails_the_attempt_that_wrote_it() -> None:
    app = App("shop")

    @app.component(key="key", state=V1, retry=Retry(attempts=1))
    class Till:
        @on(Job)
        async def serve(self, job: Job, state: V1, ctx: Context) -> None:
            state.count = "many" if job.n == 1 else state.count + 1  # type: ignore[assignment]

    async with app.simulate(errors="record") as sim:
        for n in range(4):
            await sim.send(Job("a", n))
        await sim.settle()
        assert sim.ledger.dead == 1
        assert sim.state(Till, "a").count == 3
        (letter,) = sim.dead()
        assert letter.error == "InvalidStateError"
        assert "count" in letter.detail
