"""Check that every local link in the project's Markdown files leads to a file, and every #anchor to a heading.

Prints `FILE:LINE: what is wrong` for each dead link and exits with 1 if there is one. Links to other sites are not
followed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(\s*<?([^\s)>]+)|^\s*\[[^\]]+\]:\s*<?([^\s>]+)|\b(?:href|src)=\"([^\"]+)\"")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)(?:\s+#+)?\s*$")
ANCHOR = re.compile(r"\b(?:id|name)=\"([^\"]+)\"")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Number the lines from 1, leaving out fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def anchors(text: str) -> set[str]:
    """Name the places in a document that a link can lead to, as GitHub does."""
    found: set[str] = set()
    for _, line in prose(text):
        found.update(ANCHOR.findall(line))
        if heading := HEADING.match(line):
            title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            again = 0
            while name in found:
                again += 1
                name = f"{slug}-{again}"
            found.add(name)
    return found


def dead_links(root: Path) -> Iterator[str]:
    """Yield one line for each link that leads nowhere."""
    for page in sorted(root.rglob("*.md")):
        if any(part.startswith(".") for part in page.relative_to(root).parts):
            continue
        for number, line in prose(page.read_text("utf-8")):
            for link in LINK.finditer(CODE.sub("", line)):
                target = link[1] or link[2] or link[3]
                if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
                    continue
                path, _, anchor = unquote(target).partition("#")
                base = root if path.startswith("/") else page.parent
                file = base / path.lstrip("/") if path else page
                if not file.exists():
                    yield f"{page.relative_to(root)}:{number}: no such file: {target}"
                elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
                    yield f"{page.relative_to(root)}:{number}: no such heading: {target}"


def main() -> int:
    dead = list(dead_links(Path(__file__).resolve().parent.parent))
    print("\n".join(dead) or "No dead link.")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
