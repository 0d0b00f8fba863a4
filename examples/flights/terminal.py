"""The terminal's other direction: keys without Enter, and the signals that end the demo."""

import os
import select
import signal
import sys
import termios
import time
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

OFF = b"\0"


class Keys:
    """Keys as they are pressed. Where nobody can press any, none ever come. The terminal is as before afterwards."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._before: list[Any] = []

    @property
    def usable(self) -> bool:
        """Whether somebody can press one."""
        return self._fd is not None

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError, termios.error):
            fd = sys.stdin.fileno()
            if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():  # in the background it would stop us
                self._before = termios.tcgetattr(fd)
                self._fd = fd
                tty.setcbreak(fd)
                mine = termios.tcgetattr(fd)
                mine[6][termios.VSUSP] = OFF  # Ctrl-Z: nobody would look after the worker
                termios.tcsetattr(fd, termios.TCSANOW, mine)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSAFLUSH, self._before)

    def pressed(self, seconds: float) -> str:
        """The next key; empty when none came in time."""
        if self._fd is None:
            time.sleep(seconds)
            return ""
        if not select.select([self._fd], [], [], seconds)[0]:
            return ""
        try:
            key = os.read(self._fd, 1)
        except OSError:
            key = b""
        if not key:  # nobody is there any more
            self._fd = None
        return key.decode(errors="replace")


class Told:
    """Told to end, by Ctrl-C, SIGTERM or SIGHUP: once means in order, twice means now."""

    def __init__(self) -> None:
        self.times = 0
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._tell)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self.times += 1
        self.signal = self.signal or number

    @property
    def twice(self) -> bool:
        """Whether patience is over."""
        return self.times > 1
