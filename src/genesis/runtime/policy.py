"""A policy: all that protects the calls of one dependency. It works alone, and inside the platform.

In: settings, and the operations of the dependency. Out: protected calls, signals, figures. Its state is its circuit (or one for
each shard), its limits and its budget; the settings can be changed at any time.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from random import Random
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakSet

from genesis.core.errors import DefinitionError
from genesis.core.signals import CircuitChanged, Signal, Step, StepTaken
from genesis.layers.mitigation.budget import Budget
from genesis.layers.mitigation.circuit import Circuit
from genesis.layers.mitigation.settings import MEANINGS, NEVER, PolicySettings
from genesis.layers.mitigation.states import CircuitState, Transition
from genesis.runtime.block import Attempt
from genesis.runtime.clock import monotonic, time_of, time_of_system
from genesis.runtime.gate import Gate
from genesis.runtime.log import log
from genesis.runtime.operation import Matcher, Operation, Options, Which
from genesis.runtime.part import Part

P = ParamSpec("P")
R = TypeVar("R")
SHARDS_MAX = 2_000
"""Shards that are remembered, of some 25 KB each; of more, the one that was used longest ago is forgotten."""
_policies: WeakSet[Policy] = WeakSet()


class Policy:
    """All that protects the calls of one dependency: circuit, attempts, timeouts, limits, budget."""

    def __init__(
        self,
        name: str,
        settings: PolicySettings | None = None,
        *,
        failure_on: Which | tuple[Which, ...] = Exception,
        ignore: Which | tuple[Which, ...] = (),
        initial: CircuitState = CircuitState.CLOSED,
        raise_original: bool = False,
        **changes: Any,
    ) -> None:
        """Describe a dependency.

        Args:
            name: Of the dependency. A second policy of the same name must have the same settings.
            settings: All of them; default: `PolicySettings()`.
            failure_on: Errors that are failures of the dependency, by class or by function. Others are answers: they reach the
                caller and count as successes of the circuit. Cancellation is never a failure.
            ignore: Errors that say nothing of the dependency. They win over `failure_on`.
            initial: State to begin in.
            raise_original: Raise the error of the dependency even where it has opened the circuit; else `CircuitOpenError`
                from it.
            **changes: Settings by name, instead of those of `settings`: ``attempts=5``.

        Raises:
            SettingsError: a setting is unknown or out of range.
            DefinitionError: something is no name, class or function; or there is a policy of this name with other settings.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise DefinitionError(f"a policy is called {name!r}", fix='Policy("pricing")')
        if settings is not None and not isinstance(settings, PolicySettings):
            raise DefinitionError(f"settings of {name} are {settings!r}", fix="Policy(name, attempts=5)")
        if initial not in tuple(CircuitState):
            raise DefinitionError(f"initial state of {name} is {initial!r}", fix="initial=CircuitState.OPEN")
        self.name, self.settings = name, (settings or PolicySettings()).changed(**changes)
        self.failures, self.ignored = Matcher(failure_on, otherwise=True), Matcher(ignore)
        self.raise_original, self._initial = raise_original, CircuitState(initial)
        self.operations: WeakSet[Operation] = WeakSet()
        self.clock: Callable[[], float] = monotonic
        """The running loop's time, or the system's."""
        self._listeners: list[tuple[Callable[[Any], None], tuple[type[Signal], ...]]] = []
        self.listened = False
        """Whether anybody listens."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The one that called last, as far as that matters."""
        self.asks_loop = True
        """Whether a call that ends at once has to ask which loop runs: not if that has the system's time, as most have."""
        self._begin(Random())
        self._register()
        self._default = Operation(self, Options())

    def _register(self) -> None:
        if self._others():
            gc.collect()  # one that nobody has any more is no other
        if others := self._others():
            differ = ", ".join(one for one in MEANINGS if getattr(others[0].settings, one) != getattr(self.settings, one))
            raise DefinitionError(
                f"there is a policy {self.name!r} with other settings ({differ}): one dependency, one policy",
                fix="import that one",
            )
        _policies.add(self)

    def _others(self) -> list[Policy]:
        return [one for one in policies() if one.name == self.name and one.settings != self.settings]

    def _begin(self, rng: Random) -> None:
        """Forget all that was learned."""
        self.rng, self.budget = rng, Budget(self.settings)
        self.counts: Counter[str] = Counter()
        self.gate = Gate(self.settings, rng, self._limited)
        self.whole = self._new_part("")
        self.whole.watch(self.listened)
        self.shards: OrderedDict[str, Part] = OrderedDict()
        """By name, the one that was used longest ago first."""
        self._hand: Callable[[Circuit, float], None] | None = None
        """What was done by hand and lasts: shards that come later begin with it."""

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Another loop calls. In one with virtual time a new world begins: what was learned elsewhere is of another time."""
        virtual, was_virtual = getattr(loop, "virtual", False), getattr(self.loop, "virtual", False)
        self.loop, self.clock = loop, time_of(loop)
        self.asks_loop = self.clock is not time_of_system
        if virtual or was_virtual:
            self._begin(Random(self.name) if virtual else Random())

    def now(self) -> float:
        """The running loop's time, or the system's in a thread that has none."""
        loop = asyncio._get_running_loop()
        if loop is not None and loop is not self.loop:
            self.enter(loop)
        return self.clock()

    def _new_part(self, shard: str) -> Part:
        return Part(shard, self.settings, self.budget, self.rng, initial=self._initial, tell=self._changed, count=self.count)

    def part(self, shard: str) -> Part:
        """One shard of the dependency, with a circuit of its own."""
        found = self.shards.get(shard)
        if found is None:
            found = self.shards[shard] = self._new_part(shard)
            if self._hand is not None:
                found.by_hand(self._hand, self.now())
            if len(self.shards) > SHARDS_MAX:
                self.shards.popitem(last=False)
        else:
            self.shards.move_to_end(shard)
        return found

    # --- operations ---------------------------------------------------------------------------------------------------

    def protect(
        self,
        *,
        name: str = "",
        idempotent: bool = False,
        essential: bool | None = None,
        fallback: Callable[..., Any] | None = None,
        deadline: float | None = None,
        timeout: float | None = None,
        expected_latency: float | None = None,
        attempts: int | None = None,
        retry_on: Which | tuple[Which, ...] | None = None,
        not_processed: Which | tuple[Which, ...] = (),
        bad_result: Callable[[Any], bool] | None = None,
        shard: Callable[..., Hashable] | None = None,
    ) -> Operation:
        """Describe an operation: ``@policy.protect(idempotent=True)`` above a function, or an `Operation` to call with.

        Args:
            name: Default: the function's.
            idempotent: It may run twice, even at once: it is retried and hedged. Else only what was not processed is retried.
            essential: It is never abandoned, and retried sooner. Default: the policy's.
            fallback: Called with the same arguments when the call fails; while RESILIENT also beside a slow one.
            deadline: Seconds for all attempts together. A nearer one of the caller's is kept.
            timeout: Seconds for one attempt, instead of the learned one.
            expected_latency: Seconds, if they are known: as long as none are learned, and instead of them.
            attempts: Tries one after the other. Default: the policy's.
            retry_on: Failures that are retried; default: all.
            not_processed: Errors after which nothing was done, so that even what is not idempotent may be tried again.
            bad_result: Says of a result whether it is a failure.
            shard: Called with the same arguments: which shard of the dependency the call is for. Each has a circuit of its own.

        Raises:
            DefinitionError: a time is not positive.
            SettingsError: attempts is out of range.
        """
        options = Options(
            name=name,
            idempotent=idempotent,
            essential=essential,
            fallback=fallback,
            deadline=deadline,
            timeout=timeout,
            expected_latency=expected_latency,
            attempts=attempts,
            retry_on=retry_on,
            not_processed=not_processed,
            bad_result=bad_result,
            shard=shard,
        )
        return Operation(self, options)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Protect a function as an operation that must not be repeated: ``@policy`` above it."""
        return self.protect()(function)

    @overload
    async def call(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, protected, as an operation that must not be repeated. For others: ``policy.protect(...).call``."""
        return await self._default.call(function, *args, **kwargs)

    def attempt(self, shard: Hashable = None) -> Attempt:
        """``async with policy.attempt():`` a protected block."""
        return self._default.attempt(shard)

    def guard(self, awaitable: Awaitable[R], **refused: object) -> Coroutine[Any, Any, R]:
        """Await what is at hand, protected: ``await policy.guard(task)``. Raises DefinitionError if repetition is asked for."""
        return self._default.guard(awaitable, **refused)

    # --- settings and state -------------------------------------------------------------------------------------------

    def update(self, **changes: Any) -> None:
        """Change settings while it runs. Raises SettingsError, and then nothing has changed."""
        settings = self.settings.changed(**changes)
        self.settings = settings
        self.budget.tune(settings)
        self.gate.tune(settings)
        for part in (self.whole, *self.shards.values()):
            part.tune(settings)
        for operation in list(self.operations):
            operation.tune(settings)

    @property
    def state(self) -> CircuitState:
        """Of the circuit; with shards, of the one for calls that name none."""
        return self.whole.circuit.state

    def troubles(self) -> dict[str, tuple[str, str]]:
        """State and reason of the circuits that are not CLOSED, by the name of the policy and its shard."""
        self.now()  # in another world there is nothing to see yet
        parts = (self.whole, *self.shards.values())
        return {self._place(part): (part.circuit.state, part.circuit.why) for part in parts if part.circuit.state != "CLOSED"}

    def _place(self, part: Part) -> str:
        return f"{self.name}[{part.shard}]" if part.shard else self.name

    def force_open(self, for_s: float = NEVER, why: str = "opened by hand") -> None:
        """Refuse all calls for `for_s` seconds, > 0."""
        until = self.now() + for_s
        self._hand = lambda circuit, now: circuit.force_open(now, until - now, why) if now < until else None
        self._by_hand(lambda circuit, now: circuit.force_open(now, for_s, why))

    def disable(self) -> None:
        """Let all calls go out, and record nothing, until `reset`."""
        self._hand = lambda circuit, now: circuit.disable()
        self._by_hand(self._hand)

    def only_measure(self) -> None:
        """Record and tell everything, and refuse nothing, until `reset`."""
        self._hand = lambda circuit, now: circuit.only_measure()
        self._by_hand(self._hand)

    def reset(self) -> None:
        """Close the circuit and let it begin anew. `counted` goes on."""
        self._hand = None
        self._by_hand(lambda circuit, now: circuit.reset(now))

    def degrade(self, why: str) -> None:
        """Somebody sees a failure coming: CLOSED becomes RESILIENT."""
        self._by_hand(lambda circuit, now: circuit.degrade(why, now))

    def _by_hand(self, act: Callable[[Circuit, float], None]) -> None:
        now = self.now()
        for part in (self.whole, *self.shards.values()):
            part.by_hand(act, now)

    # --- signals ------------------------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Any], None], *kinds: type[Signal]) -> Callable[[], None]:
        """Call a function with each signal of these kinds (default: all), in order. Returns what ends that.

        What a listener raises is logged: a call does not fail for it.
        """
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Signal)):
                raise DefinitionError(f"{kind!r} is no signal", fix="listen(listener, CircuitChanged)")
        if not callable(listener) or inspect.iscoroutinefunction(listener):
            raise DefinitionError(f"{listener!r} is no plain function", fix="listen(print)")
        entry = (listener, kinds or (Signal,))
        self._listeners.append(entry)
        self._heard()

        def stop() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)
            self._heard()

        return stop

    def _heard(self) -> None:
        self.listened = bool(self._listeners)
        self.whole.watch(self.listened)

    def emit(self, signal: Signal) -> None:
        """Tell whoever listens."""
        for listener, kinds in tuple(self._listeners):
            if isinstance(signal, kinds):
                try:
                    listener(signal)
                except Exception:
                    log.exception("a listener of policy %s failed", self.name)

    def tell(self, operation: Operation, step: Step, why: str = "") -> None:
        """The policy did something for a call."""
        self.count(step)
        if self.listened:
            self.emit(StepTaken(self.name, self.now(), operation.name, step, why))

    def count(self, what: str, times: int = 1) -> None:
        """Count it."""
        self.counts[what] += times

    def counted(self) -> dict[str, int]:
        """How often each thing happened: ends of attempts (`Outcome`), steps (`Step`), changes of state."""
        self.whole.fold()
        return dict(self.counts)

    def _limited(self, operation: str, limit: str) -> None:
        self.count(Step.LIMITED)
        if self.listened:
            self.emit(StepTaken(self.name, self.now(), operation, Step.LIMITED, limit))

    def _changed(self, part: Part, change: Transition) -> None:
        place = self._place(part)
        worse = change.new in (CircuitState.OPEN, CircuitState.RESILIENT, CircuitState.ULTRA_RESILIENT)
        (log.warning if worse else log.info)("circuit %s: %s -> %s: %s", place, change.old, change.new, change.why)
        self.count(f"{change.old}->{change.new}")
        if self.listened:
            self.emit(CircuitChanged(self.name, change.at, change.old.value, change.new.value, change.why, part.shard))

    def view(self) -> dict[str, object]:
        """Figures for people and programs."""
        return self.whole.view() | {
            "name": self.name,
            "counts": self.counted(),
            "budget": self.budget.view(),
            "places": self.gate.places,
            "shards": {name: part.view() for name, part in self.shards.items()},
        }

    def explain(self, operation: Operation | Callable[..., Any] | None = None) -> str:
        """The stages of a call in words, outermost first: of an operation, or of a function that is protected.

        Raises:
            DefinitionError: it is neither.
        """
        from genesis.runtime.explain import explain

        found = self._default if operation is None else getattr(operation, "genesis_operation", operation)
        if not isinstance(found, Operation):
            raise DefinitionError(f"{operation!r} is not protected", fix=f"{self.name}.explain()")
        return explain(self, found)


def policies() -> list[Policy]:
    """Those that are there, by name."""
    return sorted(_policies, key=lambda policy: policy.name)
