"""What can go wrong, by name: plain values that a simulation applies to a model and a drill to a live system.

In: a seed and how much of it there should be. Out: a schedule, which is faults with the times at which they happen. A
schedule is data: it can be written down, made smaller, and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

import msgspec
from msgspec import Struct

from genesis.core.ports import CrashPoint


class Fault(Struct, frozen=True, tag_field="fault", omit_defaults=True):
    """Something that goes wrong. `node` says where; faults of handlers and of the store hit that node's."""

    node: int = 0


class Crash(Fault, frozen=True, tag="crash"):
    """The process is killed now, as by kill -9, and started again."""


class CrashAtPoint(Fault, frozen=True, tag="crash-at-point"):
    """The process is killed when it passes a named point of the commit path for the (`after` + 1)-th time."""

    point: CrashPoint = CrashPoint.COMMIT
    after: int = 0


class CrashAtStep(Fault, frozen=True, tag="crash-at-step"):
    """The process is killed at its `steps`-th callback from now: between any two awaits."""

    steps: int = 1


class Stop(Fault, frozen=True, tag="stop"):
    """The process is told to end in order, as by SIGTERM: it stops its intake, drains and closes. Then it is started again."""


class Pause(Fault, frozen=True, tag="pause"):
    """The process stands still, as by SIGSTOP. It may wake as a zombie, when another has taken over."""

    seconds: float = 1.0


class CutOff(Fault, frozen=True, tag="cut-off"):
    """The process cannot reach its store: what it asks for comes through when this is over, or is given up before."""

    seconds: float = 1.0


class SlowStore(Fault, frozen=True, tag="slow-store"):
    """Every operation of the store takes up to `delay_s` longer."""

    seconds: float = 5.0
    delay_s: float = 0.2


class CommitFails(Fault, frozen=True, tag="commit-fails"):
    """The next commit is answered with UNKNOWN; `stored` says whether it took effect before it failed."""

    stored: bool = False


class CommitLate(Fault, frozen=True, tag="commit-late"):
    """The next commit takes effect, and is answered `delay_s` later."""

    delay_s: float = 1.0


class CommitTwice(Fault, frozen=True, tag="commit-twice"):
    """The next commit reaches the store twice, as a message on a network may."""


class ReadFails(Fault, frozen=True, tag="read-fails"):
    """The next read of the store fails."""


class StoreFull(Fault, frozen=True, tag="store-full"):
    """The store says that it is full: intake stops until this is over, what is accepted goes on."""

    seconds: float = 5.0


class ClockJump(Fault, frozen=True, tag="clock-jump"):
    """The wall clock of the machine is set `by_s` seconds ahead, or back."""

    by_s: float = 60.0


class ClockDrift(Fault, frozen=True, tag="clock-drift"):
    """The wall clock of the machine runs by a share of `rate` too fast (or too slow) from now on."""

    rate: float = 0.01


class HandlerRaises(Fault, frozen=True, tag="handler-raises"):
    """The next `times` calls of handlers fail."""

    times: int = 1


class HandlerHangs(Fault, frozen=True, tag="handler-hangs"):
    """The next call of a handler never ends by itself."""


class HandlerIgnoresCancel(Fault, frozen=True, tag="handler-ignores-cancel"):
    """The next call of a handler hangs for `seconds` and pays no heed to its cancellation."""

    seconds: float = 90.0


class HandlerBlocks(Fault, frozen=True, tag="handler-blocks"):
    """The next call of a handler stops the event loop for `seconds`."""

    seconds: float = 0.5


class HandlerSlow(Fault, frozen=True, tag="handler-slow"):
    """The next `times` calls of handlers take `seconds` longer."""

    times: int = 5
    seconds: float = 0.5


class DependencyDown(Fault, frozen=True, tag="dependency-down"):
    """What handlers need is unavailable for `seconds`: every call of one says so."""

    seconds: float = 5.0


class DiskFault(Fault, frozen=True):
    """Something that happens to the disk of a SQLite file."""


class PowerLoss(DiskFault, frozen=True, tag="power-loss"):
    """The machine loses its power in the middle of the (`after` + 1)-th write or sync of a file.

    What was not synced is lost, whole or in part.
    """

    after: int = 0


class SyncFails(DiskFault, frozen=True, tag="sync-fails"):
    """The (`after` + 1)-th sync of a file fails: what of it is on the disk is unknown, and no later sync makes good for it.

    A disk that fails so often dies soon: `power_after` lets the power fail in the middle of the (`power_after` + 1)-th write
    or sync after it.
    """

    after: int = 0
    power_after: int | None = None


class DiskFull(DiskFault, frozen=True, tag="disk-full"):
    """For `seconds` no file can grow."""

    seconds: float = 2.0


AnyFault = (
    Crash
    | CrashAtPoint
    | CrashAtStep
    | Stop
    | Pause
    | CutOff
    | SlowStore
    | CommitFails
    | CommitLate
    | CommitTwice
    | ReadFails
    | StoreFull
    | ClockJump
    | ClockDrift
    | HandlerRaises
    | HandlerHangs
    | HandlerIgnoresCancel
    | HandlerBlocks
    | HandlerSlow
    | DependencyDown
    | PowerLoss
    | SyncFails
    | DiskFull
)


class Happening(Struct, frozen=True):
    """A fault with the time at which it happens, in virtual seconds from the start."""

    at_s: float
    fault: AnyFault


Schedule = Sequence[Happening]


def name_of(fault: Fault) -> str:
    """Its name, as a drill writes it."""
    return str(type(fault).__struct_config__.tag)


_DRAWS: dict[str, tuple[float, Callable[[Random, int], AnyFault]]] = {
    "crash": (2, lambda rng, node: Crash(node)),
    "crash-at-point": (6, lambda rng, node: CrashAtPoint(node, rng.choice(list(CrashPoint)), rng.randrange(6))),
    "crash-at-step": (3, lambda rng, node: CrashAtStep(node, int(10 ** rng.uniform(0, 3)))),
    "stop": (2, lambda rng, node: Stop(node)),
    "pause": (2, lambda rng, node: Pause(node, _some(rng, 0.05, 20))),
    "cut-off": (2, lambda rng, node: CutOff(node, _some(rng, 0.05, 10))),
    "slow-store": (1, lambda rng, node: SlowStore(node, _some(rng, 0.5, 10), _some(rng, 0.01, 0.5))),
    "commit-fails": (3, lambda rng, node: CommitFails(node, rng.random() < 0.5)),
    "commit-late": (1, lambda rng, node: CommitLate(node, _some(rng, 0.01, 5))),
    "commit-twice": (1, lambda rng, node: CommitTwice(node)),
    "read-fails": (1, lambda rng, node: ReadFails(node)),
    "store-full": (1, lambda rng, node: StoreFull(node, _some(rng, 0.5, 5))),
    "clock-jump": (1, lambda rng, node: ClockJump(node, rng.choice((-1, 1)) * _some(rng, 0.1, 600))),
    "clock-drift": (0.5, lambda rng, node: ClockDrift(node, rng.uniform(-0.02, 0.02))),
    "handler-raises": (2, lambda rng, node: HandlerRaises(node, rng.randint(1, 5))),
    "handler-hangs": (1, lambda rng, node: HandlerHangs(node)),
    "handler-ignores-cancel": (1, lambda rng, node: HandlerIgnoresCancel(node, _some(rng, 5, 100))),
    "handler-blocks": (1, lambda rng, node: HandlerBlocks(node, _some(rng, 0.01, 3))),
    "handler-slow": (1, lambda rng, node: HandlerSlow(node, rng.randint(1, 20), _some(rng, 0.01, 2))),
    "dependency-down": (1, lambda rng, node: DependencyDown(node, _some(rng, 0.5, 20))),
    "power-loss": (4, lambda rng, node: PowerLoss(node, int(10 ** rng.uniform(0, 2)) - 1)),
    "sync-fails": (4, lambda rng, node: SyncFails(node, rng.randrange(6), rng.choice((None, rng.randrange(60))))),
    "disk-full": (1, lambda rng, node: DiskFull(node, _some(rng, 0.5, 5))),
}
"""By name: how often it is drawn beside the others, and how."""
ON_DISK = ("power-loss", "sync-fails", "disk-full")
"""What only a store with a disk suffers."""
KINDS = tuple(kind for kind in _DRAWS if kind not in ON_DISK)
"""What every store suffers."""


def draw(rng: Random, count: int, *, over_s: float, nodes: int = 1, kinds: Iterable[str] = KINDS) -> list[Happening]:
    """A schedule of `count` faults in the first `over_s` seconds, in order of time.

    Raises:
        ValueError: there is no fault of such a name; says which there are.
    """
    kinds = list(kinds)
    for kind in kinds:
        if kind not in _DRAWS:
            raise ValueError(f"{kind!r} is no fault; they are {', '.join(_DRAWS)}")
    weights = [_DRAWS[kind][0] for kind in kinds]
    times = sorted(rng.uniform(0, over_s) for _ in range(count))
    chosen = rng.choices(kinds, weights, k=count) if kinds else []
    return [Happening(at_s, _DRAWS[kind][1](rng, rng.randrange(nodes))) for at_s, kind in zip(times, chosen, strict=False)]


def _some(rng: Random, low: float, high: float) -> float:
    """Between the two, as often in each order of magnitude."""
    return float(f"{low * (high / low) ** rng.random():.3g}")


def to_json(schedule: Schedule) -> bytes:
    """A schedule, to be kept."""
    return msgspec.json.encode(list(schedule))


def from_json(text: bytes | str) -> list[Happening]:
    """The inverse. Raises `msgspec.ValidationError`: it is no schedule."""
    return msgspec.json.decode(text, type=list[Happening])
