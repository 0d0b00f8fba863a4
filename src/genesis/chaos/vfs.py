"""A look over SQLite's shoulder: what it writes, cuts and syncs in one folder, before the disk has it.

SQLite reaches its files through a table of functions, its VFS. Here a copy of the table is put in front of the default one;
in the files of a watched folder it asks a `Watcher` before it writes. Reads and locks go straight through, so that the
engine above, and SQLite itself, are those of production.

Source: "The SQLite OS Interface or VFS", https://www.sqlite.org/vfs.html; the structures are those of sqlite3.h.
"""

from __future__ import annotations

import ctypes as c
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from genesis.core.errors import GenesisError

OK = 0
FULL = 13
IOERR_SHORT_READ, IOERR_WRITE, IOERR_FSYNC = 522, 778, 1034
"""Result codes of SQLite."""
NAMES = ("libsqlite3.so.0", "libsqlite3.dylib", "libsqlite3.so")
"""What the library is called, when this Python shares one."""


class NotWatchableError(GenesisError):
    """The SQLite of this Python cannot be reached from outside: it is built into the interpreter."""

    code = "not-watchable"


class Watcher(Protocol):
    """Decides about the files of one folder. Answers are result codes of SQLite."""

    def write(self, file: OpenFile, offset: int, data: bytes) -> int:
        """Something is to be written."""
        ...

    def truncate(self, file: OpenFile, size: int) -> int:
        """The file is to be cut."""
        ...

    def sync(self, file: OpenFile) -> int:
        """What was written is to be made durable."""
        ...


_ReadWrite = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_int, c.c_int64)
_Truncate = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int64)
_Sync = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int)
_Size = c.CFUNCTYPE(c.c_int, c.c_void_p, c.POINTER(c.c_int64))
_Close = c.CFUNCTYPE(c.c_int, c.c_void_p)
_Open = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p)


class _Methods(c.Structure):
    """``sqlite3_io_methods``: what can be done with an open file."""

    _fields_ = [
        ("version", c.c_int),
        ("close", _Close),
        ("read", _ReadWrite),
        ("write", _ReadWrite),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("size", _Size),
        ("others", c.c_void_p * 12),
    ]


class _File(c.Structure):
    """``sqlite3_file``; what the real VFS needs lies behind it."""

    _fields_ = [("methods", c.POINTER(_Methods))]


class _Vfs(c.Structure):
    """``sqlite3_vfs``, third version."""

    _fields_ = [
        ("version", c.c_int),
        ("file_bytes", c.c_int),
        ("path_bytes", c.c_int),
        ("next", c.c_void_p),
        ("name", c.c_char_p),
        ("data", c.c_void_p),
        ("open", _Open),
        ("others", c.c_void_p * 15),
    ]


class OpenFile:
    """An open file, as its watcher sees it: what it does here is really done."""

    def __init__(self, name: str, pointer: int, methods: _Methods, watcher: Watcher) -> None:
        self.name, self.watcher = name, watcher
        self._pointer, self.methods = pointer, methods

    def size(self) -> int:
        """Bytes."""
        size = c.c_int64()
        self.methods.size(self._pointer, c.byref(size))
        return size.value

    def read(self, offset: int, size: int) -> bytes:
        """What is there; shorter at the end of the file."""
        there = max(0, min(size, self.size() - offset))
        room = c.create_string_buffer(there)
        if there and self.methods.read(self._pointer, room, there, offset) not in (OK, IOERR_SHORT_READ):
            raise OSError(f"{self.name}: {there} bytes at {offset} cannot be read")
        return room.raw

    def write(self, offset: int, data: bytes) -> int:
        """Write it."""
        return int(self.methods.write(self._pointer, data, len(data), offset))

    def truncate(self, size: int) -> int:
        """Cut it."""
        return int(self.methods.truncate(self._pointer, size))


class _Shim:
    """The VFS in front, as long as a folder is watched."""

    def __init__(self) -> None:
        self._library = find_library()
        self._real = self._library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._real.contents)
        self._vfs.name = b"genesis-watch"
        self._open = _Open(self._opened)
        self._vfs.open = self._open
        self._files: dict[int, OpenFile] = {}
        self._methods: dict[int, tuple[_Methods, _Methods]] = {}
        """By the address of the real methods: those in front, and the real ones."""
        self._watched: dict[str, Watcher] = {}

    def watch(self, folder: str, watcher: Watcher) -> None:
        """From now on, files that are opened in a folder are watched."""
        if not self._watched:
            self._library.sqlite3_vfs_register(c.byref(self._vfs), 1)
        self._watched[folder] = watcher

    def unwatch(self, folder: str) -> None:
        """Its files are closed, and nobody watches any more."""
        del self._watched[folder]
        if not self._watched:
            self._library.sqlite3_vfs_unregister(c.byref(self._vfs))

    def _opened(self, vfs: int, name: int | None, pointer: int, flags: int, out: int) -> int:
        result = int(self._real.contents.open(vfs, name, pointer, flags, out))
        path = os.fsdecode(c.string_at(name)) if name else ""
        watcher = self._watched.get(os.path.dirname(path))
        if result == OK and watcher is not None:
            file = _File.from_address(pointer)
            front, real = self._fronted(file.methods.contents)
            self._files[pointer] = OpenFile(os.path.basename(path), pointer, real, watcher)
            file.methods = c.pointer(front)
        return result

    def _fronted(self, methods: _Methods) -> tuple[_Methods, _Methods]:
        address = c.addressof(methods)
        if address not in self._methods:
            real, front = _Methods.from_buffer_copy(methods), _Methods.from_buffer_copy(methods)
            front.write = _ReadWrite(self._write)
            front.truncate = _Truncate(self._truncate)
            front.sync = _Sync(self._sync)
            front.close = _Close(self._close)
            self._methods[address] = front, real
        return self._methods[address]

    def _write(self, pointer: int, data: int, size: int, offset: int) -> int:
        file = self._files[pointer]
        return file.watcher.write(file, offset, c.string_at(data, size))

    def _truncate(self, pointer: int, size: int) -> int:
        file = self._files[pointer]
        return file.watcher.truncate(file, size)

    def _sync(self, pointer: int, flags: int) -> int:
        file = self._files[pointer]
        return file.watcher.sync(file)

    def _close(self, pointer: int) -> int:
        return int(self._files.pop(pointer).methods.close(pointer))


_shim: _Shim | None = None


def watch(folder: Path, watcher: Watcher) -> Callable[[], None]:
    """Ask `watcher` about all that SQLite does, from now on, to files that it opens in a folder.

    Returns:
        What ends it; to be called when all these files are closed.

    Raises:
        NotWatchableError: this Python does not share its SQLite.
    """
    global _shim
    _shim = _shim or _Shim()
    real = os.path.realpath(folder)
    _shim.watch(real, watcher)
    shim = _shim
    return lambda: shim.unwatch(real)


def find_library() -> Any:
    """The SQLite of this Python, as ctypes reaches it. Raises `NotWatchableError`."""
    (ours,) = sqlite3.connect(":memory:").execute("SELECT sqlite_source_id()").fetchone()
    for name in NAMES:
        try:
            library: Any = c.CDLL(name)
        except OSError:
            continue
        library.sqlite3_sourceid.restype = c.c_char_p
        if library.sqlite3_sourceid().decode() == ours:
            library.sqlite3_vfs_find.restype, library.sqlite3_vfs_find.argtypes = c.POINTER(_Vfs), [c.c_char_p]
            library.sqlite3_vfs_register.argtypes = [c.POINTER(_Vfs), c.c_int]
            library.sqlite3_vfs_unregister.argtypes = [c.POINTER(_Vfs)]
            return library
    raise NotWatchableError(
        f"the SQLite of {sys.executable} is not shared ({', '.join(NAMES)}): use the Python of your system, or store='memory'"
    )
