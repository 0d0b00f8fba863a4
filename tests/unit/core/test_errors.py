import re

import pytest

from genesis.core import errors
from genesis.core.errors import GenesisError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GenesisError)]


def test_every_error_has_a_code_of_its_own_and_says_what_it_is() -> None:
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    assert all(kind.__doc__ for kind in ALL)


@pytest.mark.parametrize(
    ("error", "text", "facts"),
    [
        (errors.DefinitionError("no type"), "no type", {"what": "no type", "where": "", "fix": ""}),
        (
            errors.DefinitionError("no type", where="class A", fix='type="a"'),
            'class A: no type\n    write: type="a"',
            {"where": "class A", "fix": 'type="a"'},
        ),
        (
            errors.IntakeFullError("5 wait", 1.25),
            "intake is full: 5 wait; retry after 1.2 s",
            {"reason": "5 wait", "retry_after_s": 1.25},
        ),
        (errors.Reject("no such sku"), "no such sku", {"reason": "no such sku"}),
        (errors.UnavailableError(), "dependency is unavailable; retry after 1.0 s", {"what": "", "retry_after_s": 1.0}),
        (errors.UnavailableError("pricing", 30), "pricing is unavailable; retry after 30.0 s", {"what": "pricing"}),
        (
            errors.StoreInUseError("shop.db", 42, "here"),
            "shop.db is in use by process 42 on here; stop it, or send through it",
            {"store": "shop.db", "pid": 42, "host": "here"},
        ),
    ],
    ids=["definition", "definition with a fix", "intake full", "reject", "something is down", "pricing is down", "in use"],
)
def test_an_error_carries_facts_and_says_them(error: GenesisError, text: str, facts: dict[str, object]) -> None:
    assert str(error) == text
    assert {fact: getattr(error, fact) for fact in facts} == facts
