"""Settings of the HTTP door."""

from __future__ import annotations

import pytest

from genesis import Settings, SettingsError


def test_they_are_read_from_the_environment() -> None:
    given = {"GENESIS_HTTP": "8080", "GENESIS_HOST": "::1", "GENESIS_HTTP_CONNECTIONS": "7", "GENESIS_TRUST_PRIORITY": "Yes"}
    settings = Settings.from_environment(given)
    assert (settings.http, settings.host, settings.http_connections, settings.trust_priority) == (8080, "::1", 7, True)
    default = Settings.from_environment({"GENESIS_TRUST_PRIORITY": "false"})
    assert (default.http, default.host, default.trust_priority) == (-1, "127.0.0.1", False)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("HTTP", "65536", "http is 65536"),
        ("HTTP", "web", "a whole number"),
        ("HTTP_CONNECTIONS", "0", "at least 1"),
        ("TRUST_PRIORITY", "2", "true or false"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings.from_environment({f"GENESIS_{name}": text})


def test_answers_are_not_held_back_for_acknowledgements() -> None:
    import socket

    from genesis.web.server import listen

    with listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY only on sockets that name their protocol"
