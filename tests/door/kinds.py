"""All kinds of malformed requests, by name."""

from __future__ import annotations

from tests.door import kinds_events, kinds_http
from tests.door.parts import noted

KINDS = {**noted(kinds_http), **noted(kinds_events)}
