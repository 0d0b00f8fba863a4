"""The notification desk: a service outside of Genesis that tells people of alerts, so many a second, unless it is cut.

    python examples/flights/desk.py JOURNAL --per-second 100

It prints its URL and takes `POST /alerts`, a JSON list of objects with an "id": 200 when all of them are in the journal,
429 with Retry-After when it is asked too fast, 503 while it is cut. An alert whose id it has is not told a second time.
A line `cut SECONDS` on standard input cuts it; the end of standard input ends it.
"""

import json
import sys
import threading
import time
from argparse import ArgumentParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from pathlib import Path
from typing import Any

Alert = dict[str, Any]


class Desk:
    """What it took, and whether it may take more."""

    def __init__(self, journal: Path, per_second: float) -> None:
        before = journal.read_text().splitlines() if journal.exists() else []
        self._ids = {line["id"] for line in map(json.loads, before) if "id" in line}
        self._journal = journal
        self._per_second = per_second
        self._room = per_second
        """How many alerts it has time for; after a second without any, as many as it takes in one."""
        self._counted_at = time.monotonic()
        self._cut_until = 0.0
        self._turn = threading.Lock()

    def cut(self, seconds: float) -> None:
        """Take nothing for a while."""
        self._cut_until = time.monotonic() + seconds

    def take(self, alerts: list[Alert]) -> tuple[int, int]:
        """Take all of them or none. Returns the status, and for 429 the seconds after which to come again."""
        with self._turn:
            now = time.monotonic()
            if now < self._cut_until:
                return self._refuse(503), 0
            self._room = min(self._per_second, self._room + (now - self._counted_at) * self._per_second)
            self._counted_at = now
            if self._room <= 0:
                return self._refuse(429), ceil(-self._room / self._per_second) or 1
            self._room -= len(alerts)
            self._write(*({**alert, "again": alert["id"] in self._ids} for alert in alerts))
            self._ids.update(alert["id"] for alert in alerts)
            return 200, 0

    def _refuse(self, status: int) -> int:
        self._write({"refused": status})
        return status

    def _write(self, *lines: Alert) -> None:
        with self._journal.open("ab", buffering=0) as file:  # in one piece
            file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())


class Handler(BaseHTTPRequestHandler):
    """One request."""

    desk: Desk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, after_s = self.desk.take(json.loads(body)) if self.path == "/alerts" else (404, 0)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if after_s:
            self.send_header("Retry-After", str(after_s))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the journal has it."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that died in the middle of a request: none of its alerts was taken, or all were."""


def main() -> None:
    parser = ArgumentParser(description="Take alerts over HTTP.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--per-second", type=float, default=100.0)
    options = parser.parse_args()
    Handler.desk = desk = Desk(options.journal, options.per_second)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    for line in sys.stdin:
        if line.startswith("cut "):
            desk.cut(float(line.removeprefix("cut ")))


if __name__ == "__main__":
    main()
