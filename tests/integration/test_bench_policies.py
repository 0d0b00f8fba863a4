"""The benchmarks of protected calls run, and their figures have their names. What they measure is no reason to fail."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from benchmarks import call, circuit, hedge, latencies, leaks, outage, probes, timeouts
from benchmarks.__main__ import NAMES, figures
from benchmarks.virtual import in_virtual_time, worst_share


@pytest.mark.parametrize(
    ("module", "one"),
    [
        (hedge, partial(hedge.one, scale=0.01)),
        (outage, partial(outage.outage, seconds=2.0)),
        (probes, partial(probes.probes, callers=20, cancelled=20)),
        (leaks, partial(leaks.leaks, calls=30)),
        (timeouts, partial(timeouts.timeouts, calls=300)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_each_figure_of_a_seed_has_its_name(module: Any, one: Any) -> None:
    ours, raw = one(1)
    assert set(ours) == {figure.name for figure in module.FIGURES}
    assert set(raw) <= set(ours)


def test_calls_that_take_seconds() -> None:
    ours, raw = latencies.latencies(1, calls=30, loopback=False)
    names = {figure.name for figure in latencies.FIGURES if not figure.name.startswith("loopback_")}
    assert set(ours) == set(raw) == names


def test_a_circuit_that_sees_a_step_and_one_that_comes_and_goes() -> None:
    assert set(in_virtual_time(circuit.step(1))) <= {figure.name for figure in circuit.FIGURES}
    assert in_virtual_time(circuit.openings(1, 10.0)) >= 1
    assert in_virtual_time(circuit.openings_as_written(1, 10.0)) >= 1


def test_costs_are_given_for_what_is_installed() -> None:
    found = call.over_bare(asyncio.run(call.costs(1_500)))
    assert {"whole_stack", "circuit", "suspends_once", "hedge_armed"} <= set(found)
    assert set(found) <= {figure.name for figure in call.FIGURES}


def test_the_worst_share_leaves_the_copy_out_that_is_always_granted() -> None:
    calls = [0.1 * i for i in range(200)]
    assert worst_share(calls, [5.0], 10.0) == 0.0
    assert worst_share(calls, [15.0, 15.0, 15.0], 10.0) == pytest.approx(2 / 100)


def test_the_figures_that_others_read_keep_their_names() -> None:
    assert {"call", "hedge"} <= set(NAMES)
    assert "whole_stack" in figures("call")
    assert {"p99_cut", "extra_share", "worst_ratio"} <= set(figures("hedge"))
