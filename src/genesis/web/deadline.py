"""How long is the answer to a request still of use? One header says it, in both directions: ``grpc-timeout``.

In: the header of a request that came, or the seconds that are left for one that goes out. Out: seconds, or the header. It says
for how long, not until when, so that the clocks of two machines need not agree; the way of the request is not taken off.

Source: gRPC over HTTP/2, "Requests": `"grpc-timeout" TimeoutValue TimeoutUnit`, 1 to 8 digits and one of H M S m u n.
"""

from __future__ import annotations

import re
from math import isnan

from genesis.web.problems import Problem

HEADER = "grpc-timeout"
NAME = HEADER.encode()
"""As ASGI and the door have it."""
PER_UNIT_NS = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}
"""Nanoseconds of each unit, the finest first."""
VALUE_MAX = 10**8 - 1
_VALUE = re.compile(rb"([0-9]{1,8})([HMSmun])")


def parsed(value: bytes) -> float:
    """Seconds that a header gives: 0 (over already, as grpc-go sends it) to 99,999,999 hours, which its 8 digits bound.

    Raises:
        Problem: of kind malformed-header; it is not as gRPC writes it.
    """
    found = _VALUE.fullmatch(value)
    if found is None:
        shown = value[:20].decode("latin-1")
        raise Problem("malformed-header", f"{HEADER}: {shown!r} is no time: 1 to 8 digits and H, M, S, m, u or n")
    return int(found[1]) * PER_UNIT_NS[found[2].decode()] / PER_UNIT_NS["S"]


def written(for_s: float) -> str:
    """The header for so many seconds, in the finest unit that holds them: rounded down, so that nobody gets more than there is.

    What is over, or less than a nanosecond, is ``0n``; infinity is the longest time there is. Raises ValueError for NaN.
    """
    if isnan(for_s):
        raise ValueError("NaN is no time")
    for_s = max(0.0, for_s)
    for unit, ns in PER_UNIT_NS.items():
        about = for_s * PER_UNIT_NS["S"] / ns
        if about < VALUE_MAX + 1:
            value = min(VALUE_MAX, int(about) + 1)
            while value * ns / PER_UNIT_NS["S"] > for_s:  # twice at the most: a product of floats is rounded, either way
                value -= 1
            return f"{value}{unit}"
    return f"{VALUE_MAX}H"


def deadline_of(headers: dict[bytes, bytes], twice: set[bytes]) -> float | None:
    """Seconds that the headers of a request give it, by lower-case name; None when they do not say.

    Raises:
        Problem: of kind malformed-header; it cannot be used, or is there twice.
    """
    value = headers.get(NAME)
    if value is None:
        return None
    if NAME in twice:
        raise Problem("malformed-header", f"{HEADER} is there twice")
    return parsed(value)
