"""Which store is meant, and which application."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from genesis.cli.talk import UNFIT, USAGE, Failure, did_you_mean
from genesis.core.errors import GenesisError

if TYPE_CHECKING:
    from genesis.app import App
    from genesis.engines.outside import Outside

STORE_MARK = slice(68, 72), b"GENS"
"""Place of the application id in the header of a SQLite file, and ours."""


# --- the store ------------------------------------------------------------------------------------------------------


def store_path(store: str) -> Path:
    """The file of a store that other processes can see.

    Raises:
        Failure: it is no file.
    """
    if store in ("memory:", ":memory:"):
        raise Failure(f"{store} is seen by its own process only: run with --store PATH to look from outside", USAGE)
    if "://" in store:
        raise Failure(f"{store}: this version knows SQLite files: --store PATH", USAGE)
    return Path(store.removeprefix("sqlite:"))


def find_store(store: str | None) -> Path:
    """The store that was named, else the only one in this folder.

    Raises:
        Failure: there is none, or more than one.
    """
    if store:
        return store_path(store)
    found = stores_in(Path.cwd())
    if len(found) == 1:
        return Path(found[0].name)
    if found:
        names = ", ".join(path.name for path in found)
        raise Failure(f"there are {len(found)} stores here ({names}): name one with --store PATH", USAGE)
    raise Failure("there is no store in this folder: name one with --store PATH or GENESIS_STORE", USAGE)


def find_both(store: str | None, app: str | None) -> tuple[Path, App | None]:
    """The store and, when it was named, the application; without `--store`, the application's own store.

    Raises:
        Failure: as `find_store` and `load_app`.
    """
    if app is None:
        return find_store(store), None
    found = load_app(app)
    return store_path(store or f"{found.name}.db"), found


def stores_in(folder: Path) -> list[Path]:
    """The stores of Genesis among the files ``*.db`` of a folder."""
    return [path for path in sorted(folder.glob("*.db")) if _is_store(path)]


def _is_store(path: Path) -> bool:
    place, mark = STORE_MARK
    try:
        with path.open("rb") as file:
            return file.read(100)[place] == mark
    except OSError:
        return False


@contextmanager
def open_store(path: Path) -> Iterator[Outside]:
    """Look at a store while the block runs.

    Raises:
        StoreError: there is none at the path, or it cannot be read.
    """
    from genesis.engines.outside import Outside

    outside = Outside(path)
    try:
        yield outside
    finally:
        outside.close()


# --- the application ------------------------------------------------------------------------------------------------


def load_app(spec: str) -> App:
    """Import an application, given as ``MODULE:APP``. Modules of the current folder are found.

    Raises:
        Failure: nothing of that name, or its import failed.
        DefinitionError: it is written wrong.
    """
    module_name, name = spec_parts(spec)
    return _app_in(_imported(module_name), name)


def spec_parts(spec: str) -> tuple[str, str]:
    """Module and name of ``MODULE:APP``.

    Raises:
        Failure: it is written in another way.
    """
    module_name, colon, name = spec.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise Failure(f"{spec!r}: name the module, not the file: {dotted}:{name or 'app'}", USAGE)
    parts = module_name.split(".")
    if not colon or not name or not all(part.isidentifier() for part in parts):
        example = f"{module_name}:app" if all(part.isidentifier() for part in parts) else "shop:app"
        raise Failure(f"{spec!r} does not name an application: write MODULE:APP, such as {example}", USAGE)
    return module_name, name


def load_scenario(spec: str, name: str | None) -> Any:
    """The coroutine function of that name in the module of an application.

    Without a name it is `scenario`; None: the module has nothing of that name, and none was asked for.

    Raises:
        Failure: there is none.
    """
    module, asked = _imported(spec.partition(":")[0]), name is not None
    name = name or "scenario"
    found = getattr(module, name, None)
    if inspect.iscoroutinefunction(found) or (found is None and not asked):
        return found
    others = [other for other, value in vars(module).items() if inspect.iscoroutinefunction(value)]
    what = "is no coroutine function" if found is not None else "is not there"
    hint = did_you_mean(name, others) or ": write `async def scenario(sim)`, which sends, waits and asserts"
    raise Failure(f"{module.__name__}.{name} {what}{hint}", USAGE)


def load_resources(spec: str, name: str | None) -> Mapping[Any, object]:
    """What the module of an application gives instead of its resources, by type; empty when no name is given.

    Raises:
        Failure: there is nothing of that name, or it is no mapping.
    """
    if name is None:
        return {}
    module = _imported(spec.partition(":")[0])
    found = getattr(module, name, None)
    if isinstance(found, Mapping):
        return found
    what = "is no mapping" if found is not None else "is not there"
    others = [other for other, value in vars(module).items() if isinstance(value, Mapping) and not other.startswith("__")]
    hint = did_you_mean(name, others) or f": write {name} = {{HttpClient: fake_client}}"
    raise Failure(f"{module.__name__}.{name} {what}{hint}", USAGE)


def _imported(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except GenesisError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(f"there is no module {error.name!r} {_nearby(error.name)}", USAGE) from error
        raise Failure(f"importing {name} failed: {error}{_place(error)}", UNFIT) from error
    except (Exception, SystemExit) as error:
        raise Failure(f"importing {name} failed: {type(error).__name__}: {error}{_place(error)}", UNFIT) from error


def _nearby(name: str) -> str:
    """Where a module was looked for, and the closest one there."""
    package, _, last = name.rpartition(".")
    folder = list(getattr(sys.modules.get(package), "__path__", ())) if package else [os.getcwd()]
    close = did_you_mean(last, [module.name for module in pkgutil.iter_modules(folder)])
    return f"in {folder[0] if folder else package}{close}"


def _place(error: BaseException) -> str:
    """Last line of the user's own code in a traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(os.getcwd())]
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _app_in(module: ModuleType, name: str) -> App:
    from genesis.app import App

    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    there = f"; it has {', '.join(f'{module.__name__}:{app}' for app in apps)}" if apps else '; write: app = App("shop")'
    if found is None:
        hint = did_you_mean(name, apps) or there
        raise Failure(f"{module.__name__} has no {name!r}{hint}", USAGE)
    raise Failure(f"{module.__name__}:{name} is no App but {_kind(found)}{there}", USAGE)


def _kind(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
