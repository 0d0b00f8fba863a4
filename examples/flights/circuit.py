"""What is known of the circuit of the desk from outside: its state as it changes, how long it was open, what it refused.

In: what the worker last said of itself, look by look. Out: figures of the run. The worker says it once a second and names
only circuits that are not CLOSED, so times are known to a second. A circuit dies with its worker; the next begins CLOSED.
"""

import re
from http.client import HTTPException
from urllib.request import urlopen

from examples.flights.alerts import desk_policy
from genesis.layers.mitigation.states import CircuitState
from genesis.runtime.status import Status

NAME = desk_policy.name
SHUT = (CircuitState.OPEN, CircuitState.HALF_OPEN)
REFUSED = re.compile(
    rf'^genesis_policy_steps_total{{policy="{NAME}",step="(?:rejected|limited|abandoned)"}} (\S+)$', re.MULTILINE
)
"""Calls that a policy ended before anything was sent."""
ANSWER_S = 2.0
"""How long the worker may take to give its metrics: it has nothing else to do by then."""


class Circuit:
    """The circuit of the desk over one run."""

    def __init__(self) -> None:
        self.state = str(CircuitState.CLOSED)
        self.why = ""
        """Of the state; empty while it is CLOSED."""
        self.openings = 0
        """How often it opened; that a probe failed is no opening of its own."""
        self.open_s = 0.0
        """Seconds in which it was OPEN or HALF_OPEN."""
        self._pid, self._at = 0, 0.0

    @property
    def shut(self) -> bool:
        """Whether it refuses calls, but for probes."""
        return self.state in SHUT

    def add(self, told: Status | None) -> None:
        """What the worker says of itself now."""
        if told is None or (told.pid, told.at) == (self._pid, self._at):
            return
        was_shut = self.shut and told.pid == self._pid
        if was_shut:
            self.open_s += told.at - self._at
        self._pid, self._at = told.pid, told.at
        self.state, self.why = told.circuits.get(NAME, (str(CircuitState.CLOSED), ""))
        self.openings += self.shut and not was_shut


def refused_by(url: str) -> int | None:
    """Calls that the policy of the desk refused since the start of the worker at this URL; None: it does not answer."""
    try:
        with urlopen(f"{url}/metrics", timeout=ANSWER_S) as answer:
            text: str = answer.read().decode()
    except (OSError, ValueError, HTTPException):  # it is down, or has no address yet
        return None
    return sum(int(float(count)) for count in REFUSED.findall(text))
