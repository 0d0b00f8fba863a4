"""An event loop whose time is virtual and whose order is drawn from a seed.

When nothing is ready, it jumps to the next timer. What is ready runs in the order that the seed decides, one callback at a
time, so that a run explores one of the interleavings that production may meet, and the same seed explores the same one.
Tasks and futures hash by number, not by address: sets of them iterate alike in every process. It runs nested inside any
other loop, or none: production code cannot tell. Sockets and threads have no place in it.

Source: the simulation of FoundationDB (Zhou et al., SIGMOD 2021) on asyncio's own callbacks.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import threading
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from contextvars import Context, ContextVar
from hashlib import blake2b
from random import Random
from typing import Any, NoReturn, Protocol, TypeVar

from genesis.core.errors import GenesisError
from genesis.runtime.clock import own_time

T = TypeVar("T")
STUCK_STEPS = 1_000_000
"""Callbacks at one moment after which it is a loop of callbacks that never ends: a thousand times what a settled app does."""
COLLECT_STEPS = 100_000
"""Callbacks between two collections of garbage: at the same step in each run, so that finalizers run at the same step too, and
rarely enough to cost 2 %. Python's own, which go by what the whole process allocates, cost 15 %."""
CANCELLED_MIN = 100
"""Cancelled timers that are let lie; beyond, they are swept out as soon as they are more than half."""


class DeadlockError(GenesisError):
    """Everything waits and no timer is set: nothing can ever happen again."""

    code = "deadlock"


class LivelockError(GenesisError):
    """Callbacks call each other without end, and time stands still."""

    code = "livelock"


class OutsideWorldError(GenesisError):
    """Code that runs in virtual time reached for a socket, a process or a thread."""

    code = "outside-world"


class Place(Protocol):
    """Where a callback belongs: a simulated process that may be paused or dead."""

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether it runs now. If not, the place keeps it, or drops it for good."""
        ...


PLACE: ContextVar[Place | None] = ContextVar("genesis_place", default=None)
"""The simulated process that the running code belongs to; inherited by all it starts."""


class InlineExecutor(Executor):
    """Runs what it is given at once: no threads under virtual time."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call it, and return the finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Numbered:
    """Hashes by a number that its loop gives it when it is hashed for the first time: most never are."""

    _number = 0
    _loop: VirtualLoop

    def __hash__(self) -> int:
        if not self._number:
            self._number = self._loop.next_number()
        return self._number


class _Task(_Numbered, asyncio.Task[Any]):
    pass


class _Future(_Numbered, asyncio.Future[Any]):
    pass


class _Nap:
    """What a task waits for until its time comes. The timer itself steps it; `asyncio.sleep` takes a second callback."""

    _asyncio_future_blocking = False

    def __init__(self, loop: VirtualLoop, until: float) -> None:
        self._loop, self._until = loop, until
        self._cancelled = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> VirtualLoop:
        return self._loop

    def add_done_callback(self, step: Callable[[Any], None], *, context: Context) -> None:
        self._step, self._context = step, context
        self._timer = self._loop.call_at(self._until, step, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        if not self._cancelled:
            self._cancelled = True
            self._timer.cancel()
            self._loop.call_soon(self._step, self, context=self._context)
        return True

    def result(self) -> None:
        del self._step, self._context, self._timer  # it is over, and they lead back here: no work for the garbage collector
        if self._cancelled:
            raise asyncio.CancelledError


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is virtual and starts at 0."""

    virtual = True
    """Says to whoever outlives a world that times of another loop mean nothing here."""

    def __init__(self, order: Random | None = None, *, trace: bool = False) -> None:
        """Begin at time 0.

        Args:
            order: Draws which of the ready callbacks runs next; None: the first that became ready.
            trace: Whether `digest` follows every step, for some 2 us each.
        """
        super().__init__()
        self.virtual_now = 0.0
        self.steps = 0
        self.owned_by: Callable[[asyncio.Task[Any], Place | None], None] | None = None
        """Told each task that is made, with the place that it belongs to."""
        self._order = order
        self._numbers = 0
        self._timers_made = 0
        self._stuck_at = STUCK_STEPS
        """The step at which time has stood still for too long."""
        self._collect_at = COLLECT_STEPS
        self._trace = blake2b(digest_size=16) if trace else None
        self._home = threading.get_ident()
        self._executor = InlineExecutor()

    # --- time and order ---------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual_now

    def run_forever(self) -> None:
        """Run until somebody stops it."""
        own_time.loops += 1
        try:
            super().run_forever()
        finally:
            own_time.loops -= 1

    def _run_once(self) -> None:
        """Callback after callback, until somebody stops the loop: one call of this method, because most of them are short."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled, draw = self._scheduled, self._order.random if self._order is not None else None  # type: ignore[attr-defined]
        while True:
            if scheduled and scheduled[0][0] <= self.virtual_now:
                self._wake_timers()
            if not ready:
                if self._stopping:  # type: ignore[attr-defined]
                    return
                self._jump()
                continue
            if draw is not None and len(ready) > 1:
                chosen = int(draw() * len(ready))
                ready[0], ready[chosen] = ready[chosen], ready[0]
            handle = ready.popleft()
            place: Place | None = handle._context.get(PLACE)
            if place is not None and not place.admits(handle):
                continue
            if handle._cancelled:  # by whoever was to run it, or by its place just now
                continue
            self.steps += 1
            if self.steps > self._stuck_at:
                raise LivelockError(f"{STUCK_STEPS} callbacks ran and time stands still: {_where_all(self)}")
            if self._trace is not None:
                self._trace.update(f"{self.virtual_now!r} {_name(handle)}\n".encode())
            handle._run()
            if self._stopping:  # type: ignore[attr-defined]
                return

    def _wake_timers(self) -> None:
        """What is due is ready."""
        scheduled, now = self._scheduled, self.virtual_now  # type: ignore[attr-defined]
        while scheduled and scheduled[0][0] <= now:
            timer = heapq.heappop(scheduled)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)  # type: ignore[attr-defined]

    def _sweep(self) -> None:
        """Forget cancelled timers."""
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        for _, _, timer in scheduled:
            timer._scheduled = not timer._cancelled
        scheduled[:] = [entry for entry in scheduled if entry[2]._scheduled]
        heapq.heapify(scheduled)
        self._timer_cancelled_count = 0

    def _jump(self) -> None:
        """Go to the next timer."""
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0][2]._cancelled:
            heapq.heappop(scheduled)[2]._scheduled = False
            self._timer_cancelled_count -= 1
        if not scheduled:
            raise DeadlockError(f"nothing can happen any more. {_where_all(self)}")
        self.virtual_now = max(self.virtual_now, scheduled[0][0])
        self._stuck_at = self.steps + STUCK_STEPS
        if self.steps >= self._collect_at:
            self._collect_at = self.steps + COLLECT_STEPS
            gc.collect(1)  # what is older was live the last time, and will be looked at when the world has ended

    def pass_time(self, seconds: float) -> None:
        """Move the clock: what a callback that blocks for so long does to everybody."""
        self.virtual_now += max(0.0, seconds)
        self._stuck_at = self.steps + STUCK_STEPS

    # --- what asyncio's own methods do, without their checks: called for each step ------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run it next, or as the seed decides."""
        if self._closed:  # type: ignore[attr-defined]
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run it at a time. Of two at the same time, the first that was set becomes ready first."""
        if self._timer_cancelled_count > max(CANCELLED_MIN, len(self._scheduled) // 2):  # type: ignore[attr-defined]
            self._sweep()
        timer: Any = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._scheduled, (when, self._timers_made, timer))  # type: ignore[attr-defined]
        timer._scheduled = True
        return timer  # type: ignore[no-any-return]

    @property
    def timers(self) -> int:
        """Timers that are set."""
        return sum(not timer._cancelled for _, _, timer in self._scheduled)  # type: ignore[attr-defined]

    def digest(self) -> str:
        """What the steps so far have been, in 32 digits: equal worlds have equal ones."""
        if self._trace is None:
            raise ValueError("this loop keeps no trace: VirtualLoop(trace=True)")
        return self._trace.hexdigest()

    # --- nested in another loop -------------------------------------------------------------------------------------

    def run_nested(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> T:
        """Run a coroutine to its end, whether or not another loop runs in this thread."""
        outer, collecting = events._get_running_loop(), gc.isenabled()
        events._set_running_loop(None)
        gc.disable()
        try:
            return self.run_until_complete(self.create_task(work, context=context))
        finally:
            if collecting:
                gc.enable()
            events._set_running_loop(outer)

    def next_number(self) -> int:
        """A number for a task or future, never given twice."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> asyncio.Future[Any]:
        """A future that hashes by number."""
        return _Future(loop=self)

    def nap(self, seconds: float) -> Awaitable[None]:
        """As `asyncio.sleep`, for the model of a store, which waits all the time."""
        return _Nap(self, self.virtual_now + seconds)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[T]:
        """A task that hashes by number, and bears it when it has no name: asyncio would count all tasks of the process."""
        task = _Task(coro, loop=self, name=name or f"task-{self.next_number()}", context=context, **options)
        if self.owned_by is not None:
            self.owned_by(task, PLACE.get() if context is None else context.get(PLACE))
        return task

    # --- what has no place in it ------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Run it here and now: a thread would run when it likes."""
        if executor is not None and not isinstance(executor, InlineExecutor):
            raise OutsideWorldError(
                f"a pool of threads has no place in virtual time ({type(executor).__name__}): use None, or asyncio.to_thread, "
                "and it runs inline"
            )
        return asyncio.wrap_future(self._executor.submit(func, *args), loop=self)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`; from another thread it is refused."""
        if threading.get_ident() != self._home:
            raise OutsideWorldError(
                f"the thread {threading.current_thread().name} called into virtual time: nobody controls when it runs. Start "
                "it through asyncio.to_thread, or replace it in the test"
            )
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(self: VirtualLoop, *args: Any, **options: Any) -> NoReturn:
        raise OutsideWorldError(
            f"{name}: sockets, files and processes have no place in virtual time: give the component something that the test "
            "replaces"
        )

    return refused


_OUTSIDE = (
    "add_reader add_writer connect_accepted_socket connect_read_pipe connect_write_pipe create_connection "
    "create_datagram_endpoint create_server create_unix_connection create_unix_server getaddrinfo getnameinfo sendfile "
    "sock_accept sock_connect sock_recv sock_recv_into sock_recvfrom sock_sendall sock_sendfile sock_sendto start_tls "
    "subprocess_exec subprocess_shell add_signal_handler"
)
for _method in _OUTSIDE.split():
    setattr(VirtualLoop, _method, _refuse(_method))


# --- who waits for what ---------------------------------------------------------------------------------------------


def _name(handle: asyncio.Handle) -> str:
    """A callback, in words that are the same in every process."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return owner.get_name()
    return str(getattr(callback, "__qualname__", type(callback).__name__))


def waiting_at(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the innermost place in its own code and what is awaited there."""
    place = ""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is None:
            break
        if "asyncio" not in frame.f_code.co_filename.split("/"):
            place = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno})"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    kind = type(awaited).__name__.lstrip("_") if awaited is not None else "nothing"
    return f"{task.get_name()} waits in {place or 'asyncio'} for a {kind}"


def _where_all(loop: VirtualLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    return "Waiting: " + ("; ".join(map(waiting_at, tasks)) or "nobody")
