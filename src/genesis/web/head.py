"""The head of a request: what it asks for, or why it must not be answered. Source: RFC 9112, sections 2.3 and 3.2."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote

import httptools

from genesis.web.body import check_head
from genesis.web.problems import Problem
from genesis.web.wire import Call, Header, headers_of

HEAD_BYTES = 64 << 10
"""Largest head of a request: an event of 1 KiB attributes, twice percent-encoded, fits many times."""


def call_of(method: str, url: bytes, headers: list[Header], version: str) -> Call:
    """What is asked; names of headers are lower-case.

    Raises:
        Problem: it must not be answered, or its body is not taken.
    """
    if len(url) + sum([len(name) + len(value) + len(": \r\n") for name, value in headers]) > HEAD_BYTES:
        raise large_head()
    if version not in ("1.1", "1.0"):
        raise bad_request(f"this door speaks HTTP/1.1, not HTTP/{version}")
    by_name, twice = headers_of(headers)
    if b"host" in twice or (b"host" not in by_name and version == "1.1"):
        raise bad_request(f"{'several' if twice else 'no'} Host headers: one is needed")
    check_head(by_name)
    try:
        path, query = _target(url)
    except httptools.HttpParserInvalidURLError:
        raise bad_request("the target of the request is no URL") from None
    return Call(method, path, query, by_name, twice)


@lru_cache(maxsize=64)
def _target(url: bytes) -> tuple[str, bytes]:
    """Path, decoded, and query. Raises httptools.HttpParserInvalidURLError."""
    parsed = httptools.parse_url(url)
    path = (parsed.path or b"").decode("latin-1")
    return unquote(path) if "%" in path else path, parsed.query or b""


def large_head() -> Problem:
    """A head that is too large."""
    return Problem("headers-too-large", f"headers of more than {HEAD_BYTES} bytes", close=True, limit_bytes=HEAD_BYTES)


def bad_request(why: str) -> Problem:
    """What came is not HTTP, as far as this door speaks it."""
    return Problem("bad-request", why, close=True)
