"""What a producer wrote of its events, and what it was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Offered:
    """What the producer wrote of an event."""

    link: int
    key: str
    level: int
    amount: int
    plan: str
    at: int
    """Number of its offer among all."""
    said_yes: bool = False
    refused: bool = False
    """At least once."""
    given_up: bool = False
    """Refused, and not offered again."""
    left: bool = False
    """Without an answer, and not offered again."""
    duplicate: list[bool] = field(default_factory=list)
    """What its answers said, one after the other."""


@dataclass
class History:
    """A producer's log."""

    events: dict[str, Offered] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    """By id: the key asked."""
    answers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    yes_times: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    batches: list[list[str]] = field(default_factory=list)
    asked: str = "producer"
    """Source of the questions."""

    @classmethod
    def read(cls, path: Path) -> History:
        history = cls()
        for at, line in enumerate(path.read_text().splitlines()):
            kind, *words = line.split()
            if kind == "S":
                link, event, key, level, amount, plan = words
                history.events[event] = Offered(int(link), key, int(level), int(amount), plan, at)
            elif kind == "Q":
                history.questions[words[0]] = words[2]
            elif kind == "Y":
                history.events[words[0]].said_yes = True
                history.events[words[0]].duplicate.append(words[1] == "1")
                history.yes_times.append(float(words[2]))
            elif kind == "A":
                history.answers[words[0]].add(int(words[1]))
                history.yes_times.append(float(words[2]))
            elif kind == "B":
                history.batches.append(words)
            elif kind == "D":
                history.asked = words[0]
            elif kind == "L":
                history.events[words[0]].left = True
            else:
                history.refusals[words[1]] += 1
                if words[0] in history.events:
                    history.events[words[0]].refused = True
                    history.events[words[0]].given_up = kind == "X"
        return history
