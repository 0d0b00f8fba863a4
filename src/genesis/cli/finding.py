"""What a check of `genesis doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check."""

    name: str
    ok: bool
    found: str
    next: str = ""
    """What to do; empty when all is well."""
