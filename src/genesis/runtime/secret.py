"""Which values of settings are secret, and what is shown instead of them: names say it, and the form of a value may."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
WORDS = ("secret", "token", "password", "passwd", "passphrase", "credential", "key", "dsn")
"""In any place of a name, its section's included: to hide one too many costs a second look, one too few costs the secret."""
_INSIDE = (
    re.compile(r"(://[^/?#\s:@]*:)[^/?#\s]+(?=@)"),
    re.compile(r"((?:password|passwd|pwd|secret|token)\s*=\s*)[^\s;&]+", re.IGNORECASE),
)
"""Secrets inside of a text: ``postgres://shop:SECRET@host/shop``, ``host=db password=SECRET``."""


def is_secret(name: str) -> bool:
    """Whether the name of a setting says that its value is nobody's business."""
    return any(word in name.lower() for word in WORDS)


def shielded(name: str, value: Any) -> Any:
    """A value of plain types as it may be shown. What is empty, true or false stays: that a secret is missing is none."""
    if isinstance(value, dict):
        return {key: shielded(f"{name}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not is_secret(name):
        return [shielded(name, inner) for inner in value]
    if value is None or value == "" or isinstance(value, bool):
        return value
    if is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        for pattern in _INSIDE:
            value = pattern.sub(rf"\1{HIDDEN}", value)
    return value
