"""Hypothesis drives the faults: production code bears all that it draws, and of a mistake it shows the few that matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis.chaos import faults
from tests.simulation.mutants import MUTANTS, call, plant
from tests.simulation.run import nodes_of, run
from tests.simulation.schedules import EVENTS, attempt, schedule

STEPS_MAX = 5
LIMIT_S = 100
NEED_FAULTS = {
    "a fenced commit counts as stored": 11,
    "a new owner has the epoch of the last": 3,
    "each attempt calls under its own key": 1,
}
"""Mistakes that show only when something breaks, each with the seed of a world with two machines in which it is found and made
small in ten to thirty seconds."""


@settings(max_examples=40, derandomize=True, database=None)
@given(st.data())
def test_no_schedule_that_hypothesis_draws_breaks_a_promise(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 9999))
    drawn = data.draw(schedule(nodes_of(seed)))
    wrong = run(seed, events=EVENTS, schedule=drawn).complaints
    kept = json.dumps({"schedule": json.loads(faults.to_json(drawn))})
    assert not wrong, f"echo '{kept}' >a.json; python -m tests.simulation {seed} --events {EVENTS} --schedule a.json: {wrong}"


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize("name", NEED_FAULTS, ids=lambda name: name.replace(" ", "-"))
def test_of_a_mistake_the_few_faults_are_shown_that_it_takes(name: str, tmp_path: Path) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    plant(mutant, tmp_path)
    seed = NEED_FAULTS[name]
    look = f"from tests.simulation import schedules; schedules.{attempt.__name__}({seed})"
    code, told, everything = call(tmp_path, look, limit_s=LIMIT_S)
    assert code == 0, everything
    found = json.loads(told[-1])
    assert found["calm"] == [], "it takes a fault to see it"
    assert found["complaints"], "what was made smaller still fails"
    assert 1 <= len(found["schedule"]) <= STEPS_MAX, found
    right = run(seed, events=EVENTS, schedule=faults.from_json(json.dumps(found["schedule"])))
    assert right.complaints == [], "without the mistake these faults do no harm"
