"""`genesis run --reload`: the application in a process of its own, which is started again when its source changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genesis.cli import moment
from genesis.cli.talk import INTERRUPTED, OK, say
from genesis.cli.where import spec_parts

LOOK_S = 0.2
"""How often files are looked at. A thousand take some 5 ms."""
SKIPPED = {"__pycache__", "node_modules", "site-packages"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Files = dict[str, int]
"""Source files, and when each was changed last."""


def reloading(spec: str, options: list[str]) -> int:
    """Run an application with these options until a signal, each time anew when a file changes. Returns the exit code.

    Raises:
        Failure: the application is named in another way than ``MODULE:APP``.
    """
    module, _ = spec_parts(spec)
    folder = folder_of(module)
    say(f"genesis: {spec} is started again when a .py file in or below {folder} changes")
    worker = Worker([sys.executable, "-m", "genesis", "run", spec, "--leash", *options])
    with worker.signals():
        while worker.told is None:
            files = files_in(folder)
            worker.start()
            changed = _changed(worker, folder, files)
            if changed:
                say(f"genesis: {changed} changed: started again")
            worker.stop()
    return INTERRUPTED if worker.told is signal.SIGINT else OK


def _changed(worker: Worker, folder: Path, before: Files) -> str:
    """Wait for a change, and name it; nothing when a signal came first."""
    said = False
    while worker.told is None:
        code = worker.ended()
        if code is not None and not said:
            said = True
            say(f"genesis: it ended with code {code}, and is started again when a file changes")
        now = files_in(folder)
        if now != before:
            names = sorted(os.path.relpath(name) for name, _ in now.items() ^ before.items())
            return names[0] if len(set(names)) == 1 else f"{names[0]} and others"
        moment.sleep(LOOK_S)
    return ""


class Worker:
    """The process that runs the application. A signal goes to it as it comes; when this process dies, it stops too."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.told: signal.Signals | None = None
        """The first signal."""

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Pass signals on while the block runs; afterwards no process is left."""
        before = {number: signal.signal(number, self._tell) for number in SIGNALS}
        try:
            yield
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tell(self, number: int, _: Any) -> None:
        self.told = self.told or signal.Signals(number)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def start(self) -> None:
        """Start it, in a process group of its own: Ctrl-C reaches it through this process, once."""
        # Without stored bytecode: two changes in a second may leave a file that looks as it did before.
        variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0, env=variables)

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def stop(self) -> None:
        """Let it stop in order, and wait for that: as long as handlers have at a stop."""
        process = self._process
        if process is not None:
            if process.poll() is None and self.told is None:
                process.send_signal(signal.SIGTERM)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def folder_of(module: str) -> Path:
    """The folder of a module or of its outermost package; this folder when there is no such module yet."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = find_spec(module.partition(".")[0])
    if found is not None and found.origin is not None:
        return Path(found.origin).parent
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0] if places else os.getcwd())


def files_in(folder: Path) -> Files:
    """Source files in and below a folder; not those of environments and hidden folders."""
    found: Files = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in SKIPPED and name[0] != "." and not os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
        ]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(place, name)
                try:
                    found[path] = os.stat(path).st_mtime_ns
                except OSError:
                    continue  # removed this very moment
    return found
