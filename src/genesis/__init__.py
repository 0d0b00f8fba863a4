"""Genesis runs event-processing applications that keep their promises while things break."""

from genesis.app import App
from genesis.config import Settings
from genesis.core.errors import (
    AskCycleError,
    AskError,
    AskFailedError,
    DeadlineExceededError,
    DefinitionError,
    DrainingError,
    GenesisError,
    HandlerTimeoutError,
    IntakeFullError,
    InvalidEventError,
    NotAcceptedError,
    RefusedError,
    Reject,
    SettingsError,
    StoreError,
    StoreInUseError,
    UnavailableError,
    UnknownTypeError,
)
from genesis.core.event import DeadLetter, Priority, Receipt
from genesis.core.message import Message, Request, State, migrate
from genesis.layers.recovery.failure import Retry
from genesis.runtime.component import every, on
from genesis.runtime.context import Context
from genesis.runtime.node import Node

__all__ = [
    "App",
    "AskCycleError",
    "AskError",
    "AskFailedError",
    "Context",
    "DeadLetter",
    "DeadlineExceededError",
    "DefinitionError",
    "DrainingError",
    "GenesisError",
    "HandlerTimeoutError",
    "IntakeFullError",
    "InvalidEventError",
    "Message",
    "Node",
    "NotAcceptedError",
    "Priority",
    "Receipt",
    "RefusedError",
    "Reject",
    "Request",
    "Retry",
    "Settings",
    "SettingsError",
    "State",
    "StoreError",
    "StoreInUseError",
    "UnavailableError",
    "UnknownTypeError",
    "every",
    "migrate",
    "on",
]
