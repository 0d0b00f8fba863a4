"""`/metrics`: the node's own counters in the text format of Prometheus, read when they are asked for. No ids in labels."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

from genesis.core.errors import GenesisError
from genesis.core.signals import Outcome, Step
from genesis.core.stats import Histogram
from genesis.layers.mitigation.states import CircuitState
from genesis.runtime.node import Node
from genesis.runtime.policy import Policy, policies
from genesis.runtime.release import version
from genesis.runtime.status import Status

METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Limits of the buckets of latencies: from a commit on a fast disk to a backlog of an hour."""


@dataclass(frozen=True, slots=True)
class DoorFigures:
    """What the door counts itself."""

    answered: Mapping[tuple[str, int], int]
    """Requests by route and status."""
    under_way: int


def exposition(node: Node | None, door: DoorFigures) -> bytes:
    """All metrics, as text."""
    return generate_latest(_Collector(node, door))


class _Collector:
    """Reads a node and a door when Prometheus asks."""

    def __init__(self, node: Node | None, door: DoorFigures) -> None:
        self._node, self._door = node, door

    def collect(self) -> Iterator[Metric]:
        """Every metric, once."""
        info = GaugeMetricFamily("genesis_build_info", "Always 1.", labels=("version", "python"))
        info.add_metric((version(), platform.python_version()), 1)
        yield info
        yield from _of_door(self._door)
        try:
            status = self._node.status() if self._node is not None else None
            latency = self._node.latency() if self._node is not None else {}
        except GenesisError:  # its store is being opened, or it has stopped: what is known is told
            status, latency = None, {}
        yield GaugeMetricFamily("genesis_up", "1 while the node has its store.", status is not None)
        if status is not None:
            yield from _of_gate(status)
            yield from _of_deliveries(status)
            yield from _of_handlers(status)
            yield from _of_sinks(status)
            yield _latency(latency)
        yield from _of_policies(policies())


def _of_door(door: DoorFigures) -> Iterator[Metric]:
    requests = CounterMetricFamily("genesis_http_requests", "Requests answered.", labels=("route", "status"))
    for (route, status), count in sorted(door.answered.items()):
        requests.add_metric((route, str(status)), count)
    yield requests
    yield GaugeMetricFamily("genesis_http_requests_under_way", "Events and questions not answered yet.", door.under_way)


def _of_gate(status: Status) -> Iterator[Metric]:
    ledger = status.ledger
    yield CounterMetricFamily("genesis_events_offered", "Events that came to the gate.", ledger.offered)
    yield CounterMetricFamily("genesis_events_accepted", "Events that were accepted: durable.", ledger.accepted)
    yield CounterMetricFamily("genesis_events_refused", "Events that were refused.", ledger.refused)
    yield CounterMetricFamily("genesis_events_duplicate", "Events that had been accepted before.", ledger.duplicate)


def _of_deliveries(status: Status) -> Iterator[Metric]:
    ledger = status.ledger
    yield _by("genesis_deliveries_born", "Deliveries that came to be, begun work included.", status.born, counter=True)
    yield _by("genesis_deliveries_ended", "Deliveries that ended, in any way.", status.ended, counter=True)
    ends = CounterMetricFamily("genesis_deliveries_outcome", "Deliveries that ended, by how.", labels=("outcome",))
    for outcome, count in (("done", ledger.done), ("expired", ledger.expired), ("dead", ledger.dead)):
        ends.add_metric((outcome,), count)
    yield ends
    yield CounterMetricFamily("genesis_retries", "Attempts that failed and were given another.", ledger.retries)
    yield _by("genesis_queue_depth", "Deliveries that wait in lanes, running ones included.", status.waiting)
    yield GaugeMetricFamily("genesis_pending", "Deliveries that wait for a retry, their key, or a person.", ledger.in_pending)
    yield GaugeMetricFamily("genesis_parked", "Deliveries that wait for a person.", status.parked)
    yield GaugeMetricFamily("genesis_ledger_balanced", "1 while the ledger adds up.", not status.imbalance)


def _of_handlers(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily("genesis_running", "Attempts under way.", status.running)
    yield GaugeMetricFamily("genesis_stuck", "Handlers that ignore their timeout.", status.stuck)
    paused = GaugeMetricFamily("genesis_handler_paused", "1 while what a handler needs is down.", labels=("handler",))
    for route in sorted(status.paused):
        paused.add_metric((route,), 1)
    yield paused


def _of_sinks(status: Status) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("genesis_sink_waiting", "Deliveries that wait for a sink to take them.", labels=("sink",))
    failing = GaugeMetricFamily("genesis_sink_failing", "1 while the last call of a sink has failed.", labels=("sink",))
    for name, sink in sorted(status.sinks.items()):
        waiting.add_metric((name,), sink.waiting)
        failing.add_metric((name,), sink.state == "failed")
    yield waiting
    yield failing


def _of_policies(found: Sequence[Policy]) -> Iterator[Metric]:
    """Of those of this process. Shards are counted with their policy, and have no circuit here: their names may be ids."""
    about = "1 for the state that the circuit of a policy is in."
    states = GaugeMetricFamily("genesis_policy_state", about, labels=("policy", "state"))
    attempts = CounterMetricFamily("genesis_policy_attempts", "Attempts that ended, by how.", labels=("policy", "outcome"))
    steps = CounterMetricFamily("genesis_policy_steps", "What a policy did for its calls.", labels=("policy", "step"))
    odds = GaugeMetricFamily("genesis_policy_success_probability", "Of the next call, as it is estimated.", labels=("policy",))
    about = "Calls, and extra attempts paid for by them, in the last ten seconds with calls."
    budget = GaugeMetricFamily("genesis_policy_budget", about, labels=("policy", "what"))
    for policy in found:
        counts = policy.counted()
        for state in CircuitState:
            states.add_metric((policy.name, state), policy.state is state)
        for outcome in Outcome:
            attempts.add_metric((policy.name, outcome), counts.get(outcome, 0))
        for step in Step:
            steps.add_metric((policy.name, step.replace(" ", "_")), counts.get(step, 0))
        odds.add_metric((policy.name,), policy.whole.probability.value)
        view = policy.budget.view()
        for what in ("calls", "retries", "hedges"):
            budget.add_metric((policy.name, what), view[what])
    yield from (states, attempts, steps, odds, budget)


def _by(name: str, about: str, by_priority: Mapping[str, int], *, counter: bool = False) -> Metric:
    family = (CounterMetricFamily if counter else GaugeMetricFamily)(name, about, labels=("priority",))
    for priority, count in by_priority.items():
        family.add_metric((priority.lower(),), count)
    return family


def _latency(by_priority: Mapping[str, Histogram]) -> Metric:
    about = "From birth to commit of what ended, since the store was opened."
    family = HistogramMetricFamily("genesis_delivery_latency_seconds", about, labels=("priority",))
    for priority, sketch in by_priority.items():
        buckets = [(str(bound), sketch.at_or_below(bound)) for bound in BOUNDS_S]
        family.add_metric((priority.lower(),), [*buckets, ("+Inf", sketch.count)], sketch.total)
    return family
