"""The pages on policies say what the code does: what is made from it is current, and the examples run."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from genesis import CircuitState
from genesis.core.signals import CircuitChanged, Step
from genesis.layers.mitigation.settings import MEANINGS
from genesis.layers.mitigation.states import TRANSITIONS
from tests.docs.test_examples import ROOT, defined
from tools.policies import MADE, diagram, renewed

PAGE = "docs/policies.md"


@pytest.mark.parametrize("page", MADE)
def test_what_is_made_from_the_code_is_current(page: str) -> None:
    assert (ROOT / page).read_text() == renewed(page), "python -m tools.policies"


def test_the_diagram_has_each_transition_that_no_hand_makes() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (.*)$", diagram(), re.MULTILINE))
    assert {(old, new, trigger) for (old, trigger), new in TRANSITIONS.items() if not trigger.endswith("by hand")} == drawn
    assert {state for edge in drawn for state in edge[:2]} == set(CircuitState)


def test_the_ways_to_call_of_the_page_work_and_the_hands_are_heard() -> None:
    names: dict[str, Any] = defined(PAGE)
    assert asyncio.run(names["ways"]()) == ["tea is reserved", 450, "the content of prices.txt", [450, 460], 450, 450, 450]
    changes = [(one.old, one.new) for one in names["heard"] if isinstance(one, CircuitChanged)]
    assert changes == [("CLOSED", "OPEN"), ("OPEN", "CLOSED"), ("CLOSED", "RESILIENT"), ("RESILIENT", "CLOSED")]
    assert names["pricing"].counted()["good"] >= 8


def test_the_words_of_the_page_are_those_of_explain() -> None:
    names: dict[str, Any] = defined(PAGE)
    shown = re.findall(r"^```text\n(.*?)^\.\.\.\n```", (ROOT / PAGE).read_text(), re.MULTILINE | re.DOTALL)[0]
    assert names["lookup"].explain().startswith(shown)


def test_the_page_names_each_setting_once_in_its_table_and_steps_that_exist() -> None:
    text = (ROOT / PAGE).read_text()
    assert [name for name in MEANINGS if len(re.findall(rf"^\| `{name}` \|", text, re.MULTILINE)) != 1] == []
    for step in re.findall(r"beyond calling \(`(.*?)`, \.\.\.\)", text)[0].split("`, `"):
        assert step in set(Step)
