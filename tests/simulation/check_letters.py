"""Dead letters: those that must be there, kept whole, for the right reason. Knows nothing of genesis."""

from __future__ import annotations

from collections import Counter

from tests.simulation.check_archive import refused_by_archive
from tests.simulation.facts import Event, Facts, Letter

ATTEMPTS = 3
"""Of hopeless and of deadly events."""
FRAGILE_ATTEMPTS = 2
SEALED_ATTEMPTS = {1, 2}
"""Of sealed ones, until somebody comes; then they begin anew."""


def letters(facts: Facts) -> list[str]:
    """Everything that is wrong with them."""
    events = {e["id"]: e for e in facts.accepted}
    have = Counter((letter["id"], letter["component"]) for letter in facts.letters)
    must = Counter(where for e in facts.accepted for where in _must(e))
    fragile = Counter({(e["id"], "desks"): 1 for e in facts.kind("fragile")})
    wrong = []
    if must - have:
        wrong.append(f"not among the dead letters: {sorted(must - have)}")
    if have - must - fragile:
        wrong.append(f"dead letters that should be none: {sorted(have - must - fragile)}")
    for letter in facts.letters:
        e = events.get(letter["id"])
        if e is not None:
            wrong += _kept_whole(letter, e)
            wrong += _reason(letter, e, facts)
    return wrong + _attempts(facts)


def _must(e: Event) -> list[tuple[str, str]]:
    if e["kind"] == "deposit":
        rejected = [(e["id"], "accounts")] if e["end"] == "rejected" else []
        return rejected + [(e["id"], "archive")] * refused_by_archive(e["n"])
    if e["kind"] in ("hopeless", "deadly"):
        return [(e["id"], "accounts")]
    if e["kind"] == "statement" and e["rejects"]:
        return [(e["id"], e["rejects"])]
    return []


def _kept_whole(letter: Letter, e: Event) -> list[str]:
    parts = ("priority", "headers", "body")
    return [
        f"dead letter {letter['id']}: its {part} is {letter[part]!r}, and was {e[part]!r}"
        for part in parts
        if letter[part] != e[part]
    ]


def _reason(letter: Letter, e: Event, facts: Facts) -> list[str]:
    reason, attempts, error = letter["reason"], letter["attempts"], letter["error"]
    failures = facts.failures.get((e["id"], letter["component"]), [])
    counted = sum(1 for name in failures if name != "UnavailableError")
    match e["kind"] if letter["component"] != "archive" else "archived":
        case "archived":
            late = failures.count("HandlerTimeoutError")  # a process that stands still takes too long, too
            right = (reason, error) == ("rejected", "Reject") and 1 <= attempts <= 1 + late
        case "hopeless":
            right = attempts == ATTEMPTS and reason in ("failed", "crashed")
        case "deadly":
            right = attempts == ATTEMPTS and (reason == "crashed" or (reason == "failed" and counted > 0))
        case "fragile":
            right = attempts == FRAGILE_ATTEMPTS and reason in ("failed", "crashed") and error != "UnavailableError"
            right = right and (counted > 0 or reason == "crashed") and counted + facts.taken_for_dead >= FRAGILE_ATTEMPTS
        case _:
            right = reason == "rejected" and error == "Reject" and attempts in facts.attempts.get(e["n"], {attempts})
    if reason == "crashed" and not facts.taken_for_dead:
        right = False
    return (
        []
        if right
        else [f"{e['kind']} {e['id']}: a dead letter after {attempts} attempts: {reason} ({error}), failed {failures}"]
    )


def _attempts(facts: Facts) -> list[str]:
    """To be unavailable costs no attempt; a deadly event kills as many processes, and one after each clean start."""
    wrong = []
    for e in facts.kind("fragile"):
        failures = facts.failures.get((e["id"], "desks"), [])
        counted = sum(1 for name in failures if name != "UnavailableError")
        most = max(facts.attempts.get(e["n"], {1}))
        if most > 1 + counted + facts.taken_for_dead:
            wrong.append(f"fragile {e['id']}: its attempt {most} came after {counted} failures that count")
    for e in facts.kind("sealed"):
        if not (found := facts.attempts.get(e["n"], set())) <= SEALED_ATTEMPTS:
            wrong.append(f"sealed {e['id']}: it had the attempts {sorted(found)}")
    for e in facts.kind("deadly"):
        deaths = facts.deaths.get(e["n"], 0)
        if deaths > ATTEMPTS + 1 + facts.stops and not facts.zombies:
            wrong.append(f"deadly {e['id']}: it killed {deaths} processes in {ATTEMPTS} attempts")
    return wrong
