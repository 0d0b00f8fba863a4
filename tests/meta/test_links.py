from pathlib import Path

from tools.check_links import dead_links

GUIDE = """\
# Getting started
## Run `genesis run` (twice)
## Run `genesis run` (twice)
<a id="here"></a>
"""

PAGE = """\
[a file](docs/guide.md) [a folder](docs) [a heading](docs/guide.md#run-genesis-run-twice) [again][ref] [out](https://x.y/z)
[absolute](/docs/guide.md#here) [own](#page) `[code](nowhere.md)` <img src="docs/guide.md">

# Page
```
[fenced](nowhere.md)
```
[ref]: docs/guide.md#run-genesis-run-twice-1
"""


def test_good_links_pass_and_dead_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/guide.md").write_text(GUIDE)
    (tmp_path / "page.md").write_text(PAGE)
    assert list(dead_links(tmp_path)) == []

    (tmp_path / "page.md").write_text("one\n[x](docs/gone.md)\n\n[y](docs/guide.md#gone) [z](#gone)\n")
    assert list(dead_links(tmp_path)) == [
        "page.md:2: no such file: docs/gone.md",
        "page.md:4: no such heading: docs/guide.md#gone",
        "page.md:4: no such heading: #gone",
    ]
