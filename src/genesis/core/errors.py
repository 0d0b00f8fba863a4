"""Every error of Genesis, on one screen. Each carries facts, and a `code` that never changes."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any


class GenesisError(Exception):
    """Root of all errors of Genesis."""

    code = "error"
    index: int | None = None
    """Which one it is about, from 0, when several events were given at once."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes, whatever their constructors take."""
        return _remade, (type(self), self.args, dict(self.__dict__))


def _remade(kind: type[GenesisError], args: tuple[Any, ...], facts: dict[str, Any]) -> GenesisError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class DefinitionError(GenesisError):
    """The application is written wrong. Says where, what, and the line to write."""

    code = "definition"

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__("".join([f"{where}: " if where else "", what, f"\n    write: {fix}" if fix else ""]))


class SettingsError(GenesisError):
    """A setting is unknown, missing or out of range. `origin` is the file and line, variable or option that gave it."""

    code = "settings"

    def __init__(self, what: str, *, origin: str = "") -> None:
        self.what, self.origin = what, origin
        super().__init__(f"{origin}: {what}" if origin and origin not in what else what)


class ResourceError(GenesisError):
    """A resource could not be opened: the node did not start, and the resources before it were closed."""

    code = "resource"

    def __init__(self, name: str, where: str, why: str) -> None:
        self.name, self.where, self.why = name, where, why
        super().__init__(f"resource {name} ({where}) could not be opened: {why}")

    def __reduce__(self) -> tuple[type[ResourceError], tuple[str, str, str]]:
        """Simulated worlds may raise it in another process."""
        return type(self), (self.name, self.where, self.why)


# --- at the gate ----------------------------------------------------------------------------------------------------


class RefusedError(GenesisError):
    """The event was not accepted; nothing of it was kept."""

    code = "refused"


class InvalidEventError(RefusedError):
    """The event does not fit its type, or cannot be encoded: sending it again will not help."""

    code = "invalid-event"


class MalformedEventError(InvalidEventError):
    """The bytes of the event are not JSON."""

    code = "malformed-event"


class UnknownTypeError(RefusedError):
    """No component handles this type."""

    code = "unknown-type"


class IntakeFullError(RefusedError):
    """The backlog, the store, or the pending work of this key is at its limit; come back after `retry_after_s`."""

    code = "intake-full"

    def __init__(self, reason: str, retry_after_s: float) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        super().__init__(f"intake is full: {reason}; retry after {retry_after_s:.1f} s")


class DrainingError(RefusedError):
    """The node is stopping and takes no new events."""

    code = "draining"


class NotAcceptedError(RefusedError):
    """The commit that carried the event failed and it was not stored: send it again with the same id."""

    code = "not-accepted"


def _retry(after_s: float) -> str:
    """When to come back, in words."""
    if after_s == inf:
        return "it stays so until somebody changes it by hand"
    return f"retry after {after_s:.1f} s" if after_s >= 1 else f"retry after {after_s:.2g} s"


# --- what a handler raises ------------------------------------------------------------------------------------------


class Reject(GenesisError):  # noqa: N818 - a verdict in the handler's own words, not a failure
    """Raised by a handler: this event can never succeed. It becomes a dead letter at once."""

    code = "reject"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class UnavailableError(GenesisError):
    """Something the handler needs is down. The delivery waits, without counting an attempt, and runs again."""

    code = "unavailable"
    attempted = False
    """Whether a policy had made the call when it raised this: then what the call does may have been done."""

    def __init__(self, what: str = "", retry_after_s: float = 1.0) -> None:
        self.what, self.retry_after_s = what, retry_after_s
        super().__init__(f"{what or 'dependency'} is unavailable; {_retry(retry_after_s)}")


# --- protected calls ------------------------------------------------------------------------------------------------


class CircuitOpenError(UnavailableError):
    """The circuit of a dependency rejects calls. `state` it is in, `why` it opened; the failure that opened it is the cause."""

    code = "circuit-open"

    def __init__(self, what: str, retry_after_s: float, state: str = "OPEN", why: str = "") -> None:
        self.state, self.why = state, why
        super().__init__(what, retry_after_s)
        self.args = (f"the circuit of {what} is {state}{f' ({why})' if why else ''}; {_retry(retry_after_s)}",)


class LimitedError(UnavailableError):
    """A limit of the policy refuses the call: `limit` is ``concurrency``, ``rate`` or ``throttle``. Nothing was sent."""

    code = "limited"

    def __init__(self, what: str, retry_after_s: float, limit: str) -> None:
        self.limit = limit
        super().__init__(what, retry_after_s)
        self.args = (f"{what} is at its limit of {limit}; {_retry(retry_after_s)}",)


class AbandonedError(UnavailableError):
    """A call that is not essential was abandoned: it would fail with a probability of 1 - `probability`."""

    code = "abandoned"

    def __init__(self, what: str, retry_after_s: float, probability: float) -> None:
        self.probability = probability
        super().__init__(what, retry_after_s)
        self.args = (f"{what} is abandoned: it would succeed with {probability:.0%}; {_retry(retry_after_s)}",)


@dataclass(frozen=True, slots=True)
class Outage:
    """What a policy knew of its dependency when it let an error through. The error has it as `genesis_outage`."""

    wait_s: float
    """Seconds after which a call may be worth trying."""
    certain: bool
    """The circuit was not CLOSED. Else only this and the calls before it have failed, and the event may be to blame as well."""


class CallTimeoutError(GenesisError, TimeoutError):
    """An attempt of a protected call took longer than `timeout_s`."""

    code = "call-timeout"

    def __init__(self, what: str, timeout_s: float) -> None:
        self.what, self.timeout_s = what, timeout_s
        super().__init__(f"{what} took over {timeout_s:.3g} s")


class NotProcessedError(GenesisError):
    """Raised by an operation: nothing was done, so it may be tried again even where a second time would do harm."""

    code = "not-processed"


# --- what ends an attempt of a handler ------------------------------------------------------------------------------


class HandlerTimeoutError(GenesisError):
    """An attempt ran longer than its `timeout`."""

    code = "handler-timeout"


class ContextClosedError(GenesisError):
    """The attempt is over (it timed out and its grace passed): nothing it does counts any more."""

    code = "context-closed"


class BatchLimitError(GenesisError):
    """One handler call emits more records or bytes than a commit may hold."""

    code = "batch-limit"


class InvalidStateError(GenesisError):
    """A handler left a state that does not fit its class: nothing of the attempt is stored."""

    code = "invalid-state"


class StateTooLargeError(GenesisError):
    """The state of one key is over 1 MiB: split it over more keys."""

    code = "state-too-large"


# --- asking ---------------------------------------------------------------------------------------------------------


class AskError(GenesisError):
    """A question got no answer."""

    code = "ask"


class AskCycleError(AskError):
    """A chain of asks came back to a component and key that waits in it."""

    code = "ask-cycle"


class AskFailedError(AskError):
    """The question got no answer: its handler failed for good (it is a dead letter), or the store did.

    `reason` is ``failed``, the reason of the dead letter (``rejected``, ``crashed``, ...), or ``store``.
    """

    code = "ask-failed"

    def __init__(self, message: str, reason: str = "failed") -> None:
        self.reason = reason
        super().__init__(message)


class DeadlineExceededError(AskError, TimeoutError):
    """The deadline is over. An accepted question is still answered; ask again with the same id."""

    code = "deadline-exceeded"


# --- stores ---------------------------------------------------------------------------------------------------------


class StoreError(GenesisError):
    """The store cannot be used."""

    code = "store"


class StoreInUseError(StoreError):
    """A living process owns the store."""

    code = "store-in-use"

    def __init__(self, store: str, pid: int, host: str) -> None:
        self.store, self.pid, self.host = store, pid, host
        super().__init__(f"{store} is in use by process {pid} on {host}; stop it, or send through it")


class StoreNewerError(StoreError):
    """The store, or a state in it, was written by a newer version."""

    code = "store-newer"


class StoreChangedError(StoreError):
    """A state class changed without a new version: nothing was touched."""

    code = "store-changed"


class NotAStoreError(StoreError):
    """The file exists and is not a store of Genesis: it was left as it is."""

    code = "not-a-store"


class StoreReadOnlyError(StoreError):
    """The store or its folder cannot be written."""

    code = "store-read-only"


class StoreCorruptError(StoreError):
    """The store is damaged: it was left as it is."""

    code = "store-corrupt"


class StoreFullError(StoreError):
    """There is no room for a commit."""

    code = "store-full"


class StoreFailedError(StoreError):
    """The store failed and could not be opened again."""

    code = "store-failed"


class FencedError(StoreError):
    """Another owner took over: this process must stop."""

    code = "fenced"
