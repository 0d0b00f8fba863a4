"""Old results in place of an error."""

from genesis.layers.mitigation.fallback import Stale
from genesis.layers.mitigation.settings import PolicySettings


def kept(*keys: str, stale_s: float = 60.0, entries: int = 3) -> Stale[str, str]:
    stale: Stale[str, str] = Stale(PolicySettings(stale_s=stale_s, stale_entries=entries))
    for key in keys:
        stale.put(key, key.upper(), 100.0)
    return stale


def test_a_result_is_given_with_its_age_until_it_is_too_old() -> None:
    stale = kept("a")
    assert stale.get("a", 100.0) == ("A", 0.0)
    assert stale.get("a", 90.0) == ("A", 0.0), "the clock stepped back"
    assert stale.get("a", 160.0) == ("A", 60.0)
    assert stale.get("a", 160.5) is None
    assert len(stale) == 0
    assert stale.get("b", 100.0) is None


def test_the_newest_result_is_given() -> None:
    stale = kept("a")
    stale.put("a", "new", 150.0)
    assert stale.get("a", 170.0) == ("new", 20.0)


def test_who_was_not_used_for_longest_goes_first() -> None:
    stale = kept("a", "b", "c")
    stale.get("a", 100.0)
    stale.put("b", "B", 100.0)
    stale.put("d", "D", 100.0)
    assert [key for key in "abcd" if stale.get(key, 100.0)] == ["a", "b", "d"]


def test_none_is_kept_unless_wanted() -> None:
    assert len(kept("a", stale_s=0.0)) == 0


def test_other_settings_hold_at_once() -> None:
    stale = kept("a", "b", "c")
    stale.tune(PolicySettings(stale_s=10.0, stale_entries=2))
    assert [key for key in "abc" if stale.get(key, 110.0)] == ["b", "c"]
    assert stale.get("b", 111.0) is None
    stale.tune(PolicySettings(stale_s=0.0))
    assert len(stale) == 0
