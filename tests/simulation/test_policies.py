"""Policies in worlds where processes die and pause while their dependency fails: nothing is lost, nothing leaks."""

import asyncio
import os

import pytest

from tests.simulation.quotes import app, scenario

RUNS = 100 if os.environ.get("CI") else 20


@pytest.mark.parametrize("nodes", [1, 2])
def test_work_waits_for_its_dependency_and_nothing_leaks(nodes: int) -> None:
    explored = asyncio.run(app.explore(scenario, runs=RUNS // 2, faults=20, nodes=nodes, seed=1000 * nodes))
    assert explored.runs == RUNS // 2
