"""From end to end: the disk had every event before its producer had the yes.

The kernel's record of the application: the first write to the log that holds an event's id, a sync of the log that began
after it and succeeded, and only then the bytes of the yes on the socket.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.drive import ROOT

SINGLY, TOGETHER, BURSTS = 30, 40, 3
CALLS = "pwrite64,pwritev,write,fsync,fdatasync,recvfrom,read,sendto,sendmsg"
LIMIT_S = 60.0


@dataclass
class Call:
    """A system call, and the numbers of the lines at which it began and ended."""

    text: str
    began: int
    ended: int


def calls(trace: str) -> list[Call]:
    """All calls, whole; threads interleave in the record."""
    begun: dict[str, tuple[str, int]] = {}
    found = []
    for at, line in enumerate(trace.splitlines()):
        pid, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>"), at
        elif resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            beginning, began = begun.pop(pid)
            found.append(Call(beginning + text[resumed.end() :], began, at))
        else:
            found.append(Call(text, at, at))
    return found


def offer(port: int) -> list[str]:
    """Events one at a time, then in bursts. Returns the ids in order; each had its yes."""
    ids = [f"event-{n:05d}" for n in range(SINGLY + TOGETHER * BURSTS)]
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as link, link.makefile("r") as answers:
        at = 0
        for size in [1] * SINGLY + [TOGETHER] * BURSTS:
            some, at = ids[at : at + size], at + size
            link.sendall("".join(f"send {event} k{event[-1]} 2 1 -\n" for event in some).encode())
            assert {answers.readline() for _ in some} == {f"yes {event} 0\n" for event in some}
    return ids


def test_every_yes_comes_after_the_sync_of_its_event(tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    trace, store = tmp_path / "trace", tmp_path / "app.db"
    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        strace = [require_tool("strace"), "-f", "-y", "-s", "5000", "-o", str(trace), "-e", f"trace={CALLS}"]
        command = [*strace, sys.executable, "-m", "tests.torture.app", str(store), str(door.fileno())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, pass_fds=[door.fileno()]) as app:
            try:
                ids = offer(door.getsockname()[1])
                os.kill(child_of(app.pid), signal.SIGTERM)
                assert app.wait(LIMIT_S) == 0
            finally:
                if app.poll() is None:
                    app.kill()  # what it traces ends with its stdin
    found = calls(trace.read_text())
    log = [call for call in found if f"{store}-wal>" in call.text]
    writes = [call for call in log if call.text.startswith("pwrite")]
    syncs = [call for call in log if re.match(r"f(data)?sync\(", call.text) and call.text.endswith("= 0")]
    said = [call for call in found if re.match(r"(sendto|write|sendmsg)\(\d+<(socket|TCP)", call.text)]
    for event in ids:
        heard = first(found, rf"(recvfrom|read)\(.*send {event} ", 0)
        written = first(writes, event, heard.ended)
        yes = first(said, f"yes {event} ", 0)
        assert any(written.ended < sync.began and sync.ended < yes.began for sync in syncs), f"{event}: no sync before its yes"


def child_of(pid: int) -> int:
    """The only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def first(found: list[Call], pattern: str, after: int) -> Call:
    for call in found:
        if call.began >= after and re.search(pattern, call.text):
            return call
    pytest.fail(f"no call matches {pattern}")
