"""Genesis runs event-processing applications that keep their promises while things break.

A public name is imported when it is used: whoever only has Genesis installed, as pytest with our plugin, pays nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        NotProcessedError,
        RefusedError,
        Reject,
        ResourceError,
        SettingsError,
        StoreError,
        StoreInUseError,
        UnavailableError,
        UnknownTypeError,
    )
    from genesis.core.event import DeadLetter, Priority, Receipt
    from genesis.core.message import Message, Request, State, migrate
    from genesis.layers.mitigation.states import CircuitState
    from genesis.layers.recovery.failure import Retry
    from genesis.runtime.component import every, on
    from genesis.runtime.context import Context
    from genesis.runtime.log import JsonLines
    from genesis.runtime.node import Node
    from genesis.runtime.parts import Module
    from genesis.runtime.policy import Policy
    from genesis.runtime.sink import Item

__all__ = [
    "App",
    "AskCycleError",
    "AskError",
    "AskFailedError",
    "CircuitState",
    "Context",
    "DeadLetter",
    "DeadlineExceededError",
    "DefinitionError",
    "DrainingError",
    "GenesisError",
    "HandlerTimeoutError",
    "IntakeFullError",
    "InvalidEventError",
    "Item",
    "JsonLines",
    "Message",
    "Module",
    "Node",
    "NotAcceptedError",
    "NotProcessedError",
    "Policy",
    "Priority",
    "Receipt",
    "RefusedError",
    "Reject",
    "Request",
    "ResourceError",
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

_HOMES = {
    "App": "genesis.app",
    "AskCycleError": "genesis.core.errors",
    "AskError": "genesis.core.errors",
    "AskFailedError": "genesis.core.errors",
    "CircuitState": "genesis.layers.mitigation.states",
    "Context": "genesis.runtime.context",
    "DeadLetter": "genesis.core.event",
    "DeadlineExceededError": "genesis.core.errors",
    "DefinitionError": "genesis.core.errors",
    "DrainingError": "genesis.core.errors",
    "GenesisError": "genesis.core.errors",
    "HandlerTimeoutError": "genesis.core.errors",
    "IntakeFullError": "genesis.core.errors",
    "InvalidEventError": "genesis.core.errors",
    "Item": "genesis.runtime.sink",
    "JsonLines": "genesis.runtime.log",
    "Message": "genesis.core.message",
    "Module": "genesis.runtime.parts",
    "Node": "genesis.runtime.node",
    "NotAcceptedError": "genesis.core.errors",
    "NotProcessedError": "genesis.core.errors",
    "Policy": "genesis.runtime.policy",
    "Priority": "genesis.core.event",
    "Receipt": "genesis.core.event",
    "RefusedError": "genesis.core.errors",
    "Reject": "genesis.core.errors",
    "Request": "genesis.core.message",
    "ResourceError": "genesis.core.errors",
    "Retry": "genesis.layers.recovery.failure",
    "Settings": "genesis.config",
    "SettingsError": "genesis.core.errors",
    "State": "genesis.core.message",
    "StoreError": "genesis.core.errors",
    "StoreInUseError": "genesis.core.errors",
    "UnavailableError": "genesis.core.errors",
    "UnknownTypeError": "genesis.core.errors",
    "every": "genesis.runtime.component",
    "migrate": "genesis.core.message",
    "on": "genesis.runtime.component",
}
"""Of each public name, the module it comes from."""

if not TYPE_CHECKING:  # else a checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
