"""An event loop whose time is virtual and whose order is drawn from a seed.

When nothing is ready, it jumps to the next timer. What is ready runs in the order that the seed decides, one callback at a
time, so that a run explores one of the interleavings that production may meet, and the same seed explores the same one.
Tasks and futures hash by number, not by address: sets of them iterate alike in every process. It runs nested inside any
other loop, or none: production code cannot tell. Sockets and threads have no place in it.

Source: the simulation of FoundationDB (Zhou et al., SIGMOD 2021) on asyncio's own callbacks.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from asyncio import events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import Context, ContextVar
from hashlib import blake2b
from random import Random
from typing import Any, NoReturn, Protocol, TypeVar

from genesis.core.errors import GenesisError

T = TypeVar("T")
STUCK_STEPS = 1_000_000
"""Callbacks at one moment after which it is a loop of callbacks that never ends: a thousand times what a settled app does."""
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
    """Hashes by the number that its loop gave it."""

    _number: int

    def __hash__(self) -> int:
        return self._number


class _Task(_Numbered, asyncio.Task[Any]):
    def __init__(self, coro: Any, *, loop: VirtualLoop, **options: Any) -> None:
        self._number = loop.next_number()  # first: asyncio registers the task, and hashes it, as it is made
        options.setdefault("name", f"task-{self._number}")  # asyncio counts all tasks of the process
        super().__init__(coro, loop=loop, **options)
        if loop.owned_by is not None:
            context: Context | None = options.get("context")
            loop.owned_by(self, PLACE.get() if context is None else context.get(PLACE))


class _Future(_Numbered, asyncio.Future[Any]):
    def __init__(self, *, loop: VirtualLoop) -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is virtual and starts at 0."""

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
        self._moment_steps = 0
        """Steps since time last moved."""
        self._trace = blake2b(digest_size=16) if trace else None
        self._home = threading.get_ident()
        self._executor = InlineExecutor()
        self.set_task_factory(_make_task)

    # --- time and order ---------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual_now

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        self._wake_timers(ready)
        if not ready:
            if self._stopping:  # type: ignore[attr-defined]
                return
            self._jump()
            self._wake_timers(ready)
        if self._order is not None and len(ready) > 1:
            chosen = int(self._order.random() * len(ready))
            ready[0], ready[chosen] = ready[chosen], ready[0]
        handle = ready.popleft()
        if handle._cancelled:
            return
        place: Place | None = handle._context.get(PLACE)
        if place is not None and not place.admits(handle):
            return
        self.steps += 1
        self._moment_steps += 1
        if self._moment_steps > STUCK_STEPS:
            raise LivelockError(f"{STUCK_STEPS} callbacks ran and time stands still: {_where_all(self)}")
        if self._trace is not None:
            self._trace.update(f"{self.virtual_now!r} {_name(handle)}\n".encode())
        handle._run()

    def _wake_timers(self, ready: Any) -> None:
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        if self._timer_cancelled_count > max(CANCELLED_MIN, len(scheduled) // 2):
            self._sweep(scheduled)
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self.virtual_now):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                ready.append(timer)

    def _sweep(self, scheduled: list[Any]) -> None:
        for timer in scheduled:
            if timer._cancelled:
                timer._scheduled = False
        scheduled[:] = [timer for timer in scheduled if not timer._cancelled]
        heapq.heapify(scheduled)
        self._timer_cancelled_count = 0

    def _jump(self) -> None:
        """Go to the next timer."""
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        if not scheduled:
            raise DeadlockError(f"nothing can happen any more. {_where_all(self)}")
        self.virtual_now = max(self.virtual_now, scheduled[0]._when)
        self._moment_steps = 0

    def pass_time(self, seconds: float) -> None:
        """Move the clock: what a callback that blocks for so long does to everybody."""
        self.virtual_now += max(0.0, seconds)
        self._moment_steps = 0

    @property
    def timers(self) -> int:
        """Timers that are set."""
        return sum(not timer._cancelled for timer in self._scheduled)  # type: ignore[attr-defined]

    def digest(self) -> str:
        """What the steps so far have been, in 32 digits: equal worlds have equal ones."""
        if self._trace is None:
            raise ValueError("this loop keeps no trace: VirtualLoop(trace=True)")
        return self._trace.hexdigest()

    # --- nested in another loop -------------------------------------------------------------------------------------

    def run_nested(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> T:
        """Run a coroutine to its end, whether or not another loop runs in this thread."""
        outer = events._get_running_loop()
        events._set_running_loop(None)
        try:
            return self.run_until_complete(self.create_task(work, context=context))
        finally:
            events._set_running_loop(outer)

    def next_number(self) -> int:
        """A number for a task or future, never given twice."""
        self._numbers += 1
        return self._numbers

    def create_future(self) -> asyncio.Future[Any]:
        """A future that hashes by number."""
        return _Future(loop=self)

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


def _make_task(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return _Task(coro, loop=loop, **options)


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
