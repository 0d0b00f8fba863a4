"""The simulator can find mistakes: Genesis with one made on purpose, and the seed that must notice it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, SOURCE, Mutant, look, plant

LIMIT_S = 120
"""For a copy of Python and one seed, which takes a second."""
SAMPLE = (
    "a state is forgotten before it is committed",
    "the first of a key goes behind the others",
    "ids are forgotten while they are young",
    "a cancelled timer fires",
    "the dead letters of a key share a row",
    "a handler that waits does not lock its key",
)
"""Of six areas; each is found in its first world, in about a second."""


def test_mutants_are_spread_over_the_code_and_bear_different_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
    assert len(Counter(mutant.area for mutant in MUTANTS)) >= 12


def test_every_mutant_was_looked_for_and_nearly_all_were_found() -> None:
    missed = [mutant for mutant in MUTANTS if mutant.seed is None]
    assert all(mutant.quiet >= 100 for mutant in missed)  # the list says how many seeds were tried
    assert len(missed) * 14 <= len(MUTANTS)  # of 30, 28 are to be found; the others are named in the list


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_text_of_a_mutant_is_there_once(mutant: Mutant) -> None:
    found = (SOURCE / mutant.file).read_text().count(mutant.old)
    assert found == 1, f"{mutant.file} has changed: {mutant.old!r} is there {found} times; move the mutant with the code"
    assert mutant.new != mutant.old


@pytest.mark.timeout(LIMIT_S + 30)
@pytest.mark.parametrize("name", SAMPLE, ids=lambda name: name.replace(" ", "-"))
def test_a_mutant_is_found_by_its_seed(name: str, tmp_path: Path) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    assert mutant.seed is not None
    plant(mutant, tmp_path)
    found = look(tmp_path, mutant.seed, mutant.seed + 1, mutant.store, limit_s=LIMIT_S)
    assert found is not None, f"seed {mutant.seed} is quiet: look for another, python -m tests.simulation.mutants '{name}'"


@pytest.mark.timeout(LIMIT_S + 30)
def test_a_copy_without_a_mistake_is_quiet(tmp_path: Path) -> None:
    plant(None, tmp_path)
    for seed in sorted({mutant.seed or 0 for mutant in MUTANTS if mutant.name in SAMPLE}):
        assert look(tmp_path, seed, seed + 1, limit_s=LIMIT_S) is None
