"""Write what the documents on policies take from the code: the diagram of states, the tables of settings and of behaviours.

`python -m tools.policies` in `./dev shell` writes the marked parts of docs/policies.md and docs/proof.md; a test compares them.
"""

from collections.abc import Callable
from dataclasses import fields
from math import inf
from pathlib import Path

from genesis.layers.mitigation.settings import PolicySettings
from genesis.layers.mitigation.states import TRANSITIONS, Trigger
from tests.mutants.behaviours import table

ROOT = Path(__file__).parents[1]


def diagram() -> str:
    """The states of a circuit and what moves it, by itself, from one to another."""
    by_itself = [(edge, new) for edge, new in TRANSITIONS.items() if edge[1] not in (Trigger.FORCED, Trigger.RESET)]
    edges = [f"    {old} --> {new}: {trigger.value}" for (old, trigger), new in by_itself]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> CLOSED", *edges, "```"])


def settings() -> str:
    """All settings of a policy."""
    rows = []
    for one in fields(PolicySettings):
        low, high = one.metadata["low"], one.metadata["high"]
        above = "over" if one.metadata["open"] else "from"
        span = "" if one.type == "bool" else f"{above} {_said(low)}" + ("" if high == inf else f" to {_said(high)}")
        rows.append(f"| `{one.name}` | {_said(one.default)} | {span} | {one.metadata['meaning']} |")
    return "\n".join(["| setting | default | range | meaning |", "| --- | --- | --- | --- |", *rows])


def _said(value: float) -> str:
    if isinstance(value, bool):
        return str(value)
    return "never ends" if value == inf else f"{value:,g}" if value < 1_000_000 else f"{value:,.0f}"


MADE: dict[str, dict[str, Callable[[], str]]] = {
    "docs/policies.md": {"diagram": diagram, "settings": settings},
    "docs/proof.md": {"behaviours": table},
}
"""By page and the name in its marks."""


def renewed(page: str) -> str:
    """A page with its marked parts made anew. Raises ValueError when a mark is missing."""
    text = (ROOT / page).read_text()
    for name, make in MADE[page].items():
        begin, end = f"<!-- {name}: made by tools/policies.py -->\n", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{page} has no marks for {name}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make()}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for changed in MADE:
        (ROOT / changed).write_text(renewed(changed))
