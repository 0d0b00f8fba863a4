"""Where a store waits for the disk: in a thread of its own, or, in simulations and tests, right here."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
CHUNK_BYTES = 1 << 20


class Writer(Protocol):
    """Runs jobs one after the other, in the order in which they were given."""

    def run(self, job: Callable[[], T]) -> Awaitable[T]:
        """Start a job, at once or after those before it. It runs to its end, awaited or not."""
        ...

    def renew(self, path: Path) -> None:
        """Write what a file holds once more, and sync it. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Wait for the jobs that were given. A later `run` starts anew."""
        ...


def renew(path: Path) -> None:
    """Write what a file holds once more, in place, and sync it: then all of it is on the disk.

    Raises:
        OSError: it is not; `EIO` of a sync among others.
    """
    with path.open("r+b", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            file.seek(-len(chunk), os.SEEK_CUR)
            file.write(chunk)
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: a plain sync stops at the drive's cache
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        os.fsync(file)


class ThreadWriter:
    """One thread: what blocks in the kernel there, outside the GIL, does not stop the event loop.

    The first job starts it, `close` ends it. It is not a daemon: a process that ends waits for the commit under way.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def run(self, job: Callable[[], T]) -> Awaitable[T]:
        """Queue a job; its answer comes through the running event loop."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="genesis-writer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._pool.submit(_work, job, loop, answer)
        return answer

    def renew(self, path: Path) -> None:
        """Here and now: a store that is opened has nothing else to do."""
        renew(path)

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


# Not `run_in_executor`: a cancelled waiter would take a job that is still queued with it.
def _work(job: Callable[[], T], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T]) -> None:
    try:
        result = job()
    except BaseException as error:  # whatever it is, it belongs to the one who waits
        loop.call_soon_threadsafe(_fail, answer, error)
    else:
        loop.call_soon_threadsafe(_succeed, answer, result)


def _succeed(answer: asyncio.Future[T], result: T) -> None:
    if not answer.cancelled():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: BaseException) -> None:
    if not answer.cancelled():
        answer.set_exception(error)


class _Answered(Generic[T]):
    """What is awaited when there is nothing to wait for."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        yield from ()
        return self._value


class InlineWriter:
    """No thread: a job runs when it is given, and needs no event loop."""

    def run(self, job: Callable[[], T]) -> Awaitable[T]:
        """Run a job. What it raises is raised here."""
        return _Answered(job())

    def renew(self, path: Path) -> None:
        """Here and now."""
        renew(path)

    def close(self) -> None:
        """Nothing waits."""
